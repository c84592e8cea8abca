"""What callers and workers exchange with the job state machine."""

from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

from osora_common.presets import Point
from registry.models import EventLevel, Method

HeartbeatSignal = Literal["continue", "cancel", "pause", "suspend", "lost"]
Fault = Literal["user", "platform", "unknown"]


class LeaseLostError(Exception):
    """The attempt no longer owns its job: stop at once, and write nothing more."""


class JobError(TypedDict):
    """Why a job or an attempt failed. A user's fault is final; any other is tried again while attempts are left.

    `unknown` is what the worker has no words for: a fault of ours, of the machine, or of what the job asks for.
    """

    code: str
    message: str
    param: str | None
    fault: Fault
    line: NotRequired[int]
    next_action: str | None


class RowCounts(TypedDict):
    """What became of the rows of a job's files: those that it trains on, those that it validates on, and of all that
    were too long those that were left out and those that were cut."""

    training: int
    validation: int
    dropped: int
    truncated: int


class Plan(TypedDict):
    """What a worker has made of a job's settings. Decided once: every attempt trains by it."""

    specs: list[dict[str, Any]]
    """The training spec; of a sweep, those of all its members until it has ended, then the best one's."""
    hyperparameters: dict[str, Any]
    """OpenAI's hyperparameters as numbers, as far as they are decided."""
    rows: NotRequired[RowCounts]
    """None of a job of before they were counted."""


@dataclass(frozen=True)
class Remark:
    """A line for a job's history."""

    message: str
    level: EventLevel = "info"
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class JobRequest:
    """A job as the tenant asked for it; the API has validated the shapes."""

    base: str | None
    """None: that of `from_adapter`."""
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    method: Method = "supervised"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    osora: dict[str, Any] = field(default_factory=dict)
    from_adapter: str | None = None
    """Id or name of an adapter or a checkpoint to begin with."""


@dataclass(frozen=True)
class FileRef:
    """A training file, as a worker needs to know it."""

    id: str
    object_key: str
    sha256: str
    format: str


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint to resume from."""

    step: int
    object_key: str
    sha256: str


@dataclass(frozen=True)
class StartRef:
    """An adapter to begin with."""

    object_key: str
    sha256: str


@dataclass(frozen=True)
class Attempt:
    """One claim of a job, with the token that fences its writes and all that is needed to run it."""

    job_id: str
    tenant_id: str
    tenant_name: str
    number: int
    token: str = field(repr=False)
    base: str
    seed: int
    method: Method
    hyperparameters: dict[str, Any]
    osora: dict[str, Any]
    points: tuple[Point, ...]
    """Of the dial, which it was accepted with: one, or several as a sweep."""
    training_file: FileRef
    validation_file: FileRef | None
    checkpoints: tuple[CheckpointRef, ...]
    """Where it can resume from, the newest first; the older ones are for when that one is damaged."""
    trained_tokens: int
    from_adapter_id: str | None
    """What it begins with, if that is not the bare base."""
    start: StartRef | None
    """Where that is; None, too, when it is gone."""
    plan: Plan | None
    """What an attempt before this one has decided."""
    probe_steps: int | None = None
    """Of a probe, how many steps it takes."""


@dataclass(frozen=True)
class NewAdapter:
    """An uploaded adapter, to be published with the end of its job or called as a checkpoint of it."""

    step: int
    """The step of the job whose state it is."""
    object_key: str
    sha256: str
    bytes: int
    base_fingerprint: str
    basis_fingerprint: str
    rank: int
    parameters: int
    target_modules: list[str]
    mix: int = 0


@dataclass(frozen=True)
class NewResultFile:
    """An uploaded result file (the metrics as CSV), to be listed with its job."""

    filename: str
    object_key: str
    sha256: str
    bytes: int
