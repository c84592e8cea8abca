"""Bases, as clients see them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.config import JsonDict

from api.schemas import NO_NUL, QueryModel, RequestModel
from registry.added_bases.adding import Dependents
from registry.added_bases.tables import AddedBase, BaseState
from registry.bases import Offer

BASE_EXAMPLE: JsonDict = {
    "name": "osora-tiny",
    "object": "base",
    "loaded": True,
    "added": False,
    "state": "ready",
    "progress": None,
    "seconds_left": None,
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
    "basis": {
        "fingerprint": "e3b98a4da31a127d…",
        "rank": 128,
        "full_rank": 256,
        "target_modules": ["q_proj", "v_proj"],
    },
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
    added: bool = False
    """Whether it was added to the running service; else it is in OSORA_BASES."""
    state: BaseState = "ready"
    """How far its preparation is; it is trained and called when it is `ready`."""
    progress: float | None = None
    """The part of the state's work that is done, 0 to 1, where that can be told."""
    seconds_left: float | None = None
    """Of the state, as it looks now."""
    source: str | None = None
    """What it was added from: for operators."""
    problem: str | None = None
    """Why it cannot be used, if that is known: for operators, as it may name paths."""
    next_action: str | None = None
    """What to do about the problem, likewise."""
    created_at: int | None = None
    """When it was added."""
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

    @field_validator("basis")
    @classmethod
    def _without_what_is_ours(cls, basis: dict[str, Any] | None) -> dict[str, Any] | None:
        return basis and {
            name: value for name, value in basis.items() if name not in ("object_key", "spans", "beginnings")
        }

    @classmethod
    def of(cls, name: str, offer: Offer, held: dict[str, Any] | None, *, to_operator: bool) -> Self:
        """What is known of a base, with what an inference server says that holds it."""
        said = {
            "family": offer.facts.family,
            "has_chat_template": offer.facts.has_chat_template,
            "problem": offer.problem.message if offer.problem is not None and to_operator else None,
            "next_action": offer.problem.next_action if offer.problem is not None and to_operator else None,
        }
        return cls.model_validate({"name": name, **said, **(held or {}), "loaded": held is not None})

    @classmethod
    def of_added(
        cls, base: AddedBase, held: dict[str, Any] | None = None, problem: str | None = None, *, to_operator: bool
    ) -> Self:
        """A base that was added; `problem` is what an inference server has with it."""
        known = {
            "family": base.family,
            "has_chat_template": base.has_chat_template,
            "fingerprint": base.base_fingerprint,
            "parameters": base.parameters,
            "bytes": base.bytes,
        }
        for_operators = {
            "source": base.source,
            "problem": base.problem or problem,
            "next_action": base.next_action,
        }
        return cls.model_validate(
            {
                "name": base.name,
                **known,
                **(held or {}),
                "loaded": held is not None,
                "added": True,
                "state": base.state,
                "progress": base.progress,
                "seconds_left": base.seconds_left,
                "created_at": base.created_at,
                **(for_operators if to_operator else {}),
            }
        )


class AddBase(RequestModel):
    """A base to add."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "smollm2-135m"}, {"name": "qwen", "source": "/models/Qwen2.5-0.5B-Instruct"}]
        }
    )

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            description="What it is called from now on: A-Z, a-z, 0-9, '.', '_' and '-', without '--'.",
        ),
        NO_NUL,
    ]
    source: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4096,
            description="A directory or a `.gguf` file, from / on, as the machines that train and serve have it; "
            "`owner/name` on a model hub; or a base that comes as a package. Default: the name.",
        ),
        NO_NUL,
    ] = None


class RemoveBaseQuery(QueryModel):
    """A removal."""

    leave_adapters: Annotated[
        bool,
        Field(
            description="Whether to remove it although adapters, checkpoints or aliases hang on it. They are kept, and "
            "work again when the same base is added under the same name."
        ),
    ] = False


class BaseRemoval(BaseModel):
    """A base that was removed, and what of all tenants hung on it: it is kept, and cannot be called."""

    name: str
    object: Literal["base"] = "base"
    deleted: Literal[True] = True
    adapters: int
    imported_adapters: int
    checkpoints: int
    aliases: int

    @classmethod
    def of(cls, name: str, hanging: Dependents) -> Self:
        """The removal of a base on which so much hung."""
        return cls(
            name=name,
            adapters=hanging.adapters,
            imported_adapters=hanging.imported,
            checkpoints=hanging.checkpoints,
            aliases=hanging.aliases,
        )


class BaseList(BaseModel):
    """All of them: this list has one page."""

    object: Literal["list"] = "list"
    data: list[BaseOut]
    has_more: Literal[False] = False
