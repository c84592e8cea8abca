"""The service's JSON objects that are of bases, and of points of the dial on them."""

from typing import Any, Literal, TypedDict


class Point(TypedDict, total=False):
    """A point of the dial."""

    preset: str | None  # None: by its rank or mix alone
    rank: int
    mix: int


class SizedPoint(Point, total=False):
    """The same, with how many values an adapter has there, and their bytes; None where that is not known."""

    parameters: int | None
    adapter_bytes: int | None


class BasePreset(SizedPoint, total=False):
    """A preset on a base, with the rates of a job that names none."""

    learning_rate: float
    sigma_rate: float
    mix_rate: float
    available: bool  # whether the installation has room for it


class Base(TypedDict, total=False):
    """`family` and `has_chat_template` are None where they are not known, and what follows `problem` where no inference
    server has it in memory. `source`, `problem` and `next_action` are told to operators."""

    name: str
    loaded: bool
    added: bool
    """Whether it was added to the running service; else it is in OSORA_BASES."""
    state: Literal["waiting", "downloading", "converting", "checking", "basis", "ready", "failed"]
    progress: float | None
    seconds_left: float | None
    created_at: int | None
    source: str | None
    next_action: str | None
    family: str | None
    has_chat_template: bool | None
    problem: str | None
    fingerprint: str | None
    parameters: int | None
    bytes: int | None
    max_length: int | None
    dtype: str | None
    device: str | None
    basis: dict[str, Any] | None
    presets: list[BasePreset]


class BaseRemoval(TypedDict):
    """A base that was removed, and what hung on it: that is kept."""

    name: str
    deleted: bool
    adapters: int
    imported_adapters: int
    checkpoints: int
    aliases: int
