"""Bases, as clients see them."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.config import JsonDict

from api.dial import PresetOut, presets
from registry.bases import Offer
from registry.settings import Settings

BASE_EXAMPLE: JsonDict = {
    "name": "osora-tiny",
    "object": "base",
    "loaded": True,
    "family": "llama",
    "has_chat_template": True,
    "problem": None,
    "fingerprint": "6b51d431df5d7f14…",
    "parameters": 1_400_000,
    "bytes": 5_600_000,
    "max_length": 1024,
    "longest_row": 1024,
    "dtype": "float32",
    "device": "cpu",
    "basis": {"fingerprint": "e3b98a4da31a127d…", "rank": 128, "target_modules": ["q_proj", "v_proj"]},
    "presets": [
        {
            "preset": "small",
            "rank": 128,
            "mix": 0,
            "parameters": 26_624,
            "adapter_bytes": 106_496,
            "learning_rate": 0.03,
            "sigma_rate": 2.0,
            "mix_rate": 0.1,
            "available": True,
        }
    ],
}


class BaseOut(BaseModel):
    """A base on offer; what an inference server says of it is there when one has loaded it."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [BASE_EXAMPLE]})

    name: str
    object: Literal["base"] = "base"
    loaded: bool
    family: str | None = None
    has_chat_template: bool | None = None
    """Whether it learns from conversations; None where that is not known yet."""
    problem: str | None = None
    """Why it cannot be used, if its files tell."""
    fingerprint: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    max_length: int | None = None
    """Tokens of the longest text that it is asked with, answer included."""
    longest_row: int | None = None
    """Tokens of the longest row that it trains on."""
    dtype: str | None = None
    device: str | None = None
    basis: dict[str, Any] | None = None
    presets: list[PresetOut]
    """What each is on this base, and how large its adapters are where that is known."""

    @field_validator("basis")
    @classmethod
    def _without_what_is_ours(cls, basis: dict[str, Any] | None) -> dict[str, Any] | None:
        return basis and {name: value for name, value in basis.items() if name not in ("object_key", "spans")}

    @classmethod
    def of(cls, name: str, offer: Offer, held: dict[str, Any] | None, settings: Settings) -> Self:
        """What is known of a base, with what an inference server says that holds it."""
        said = {
            "family": offer.facts.family,
            "has_chat_template": offer.facts.has_chat_template,
            "problem": None if offer.problem is None else offer.problem.message,
        }
        return cls.model_validate(
            {"name": name, **said, **(held or {}), "loaded": held is not None, "presets": presets(offer, settings)}
        )


class BaseList(BaseModel):
    """All of them: this list has one page."""

    object: Literal["list"] = "list"
    data: list[BaseOut]
    has_more: Literal[False] = False
