"""Aliases, as clients see them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from api.schemas import AtMost, Name, RequestModel
from registry.names.aliases import LARGEST_WEIGHT, MOST_TARGETS, Change
from registry.names.tables import Alias

_OLD = "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs"
_NEW = "ft:osora-tiny:default:ticket-triage:tvwxyz0123456789"
ALIAS_EXAMPLE: JsonDict = {
    "object": "alias",
    "name": "ft:gpt-4o-mini-2024-07-18:acme::abc",
    "targets": {_OLD: 95, _NEW: 5},
    "version": 2,
    "created_at": 1762300420,
    "updated_at": 1762386820,
}

ExpectedVersion = Annotated[
    int | None,
    Field(ge=0, lt=2**31, description="Only if the alias is at this version; 0: only if it is not there yet."),
]
Weights = Annotated[
    dict[Name, Annotated[int, Field(ge=1, le=LARGEST_WEIGHT)]], Field(min_length=1), AtMost(MOST_TARGETS)
]


class SetAlias(RequestModel):
    """A name, and what it is to stand for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "triage", "target": _OLD},
                {"name": "ft:gpt-4o-mini-2024-07-18:acme::abc", "targets": {_OLD: 95, _NEW: 5}, "expected_version": 1},
            ]
        }
    )

    name: Annotated[Name, Field(description="Not that of a model that there is.")]
    target: Annotated[Name | None, Field(description="An adapter, a checkpoint or a base, by name or id.")] = None
    targets: Annotated[Weights | None, Field(description="Several of those, each with its share of the requests.")] = (
        None
    )
    expected_version: ExpectedVersion = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.target is None) == (self.targets is None):
            raise PydanticCustomError("target_or_targets", "give either `target` or `targets`")
        return self

    @property
    def weights(self) -> dict[str, int]:
        """The targets with their weights."""
        return self.targets or {str(self.target): 1}


class Rollback(RequestModel):
    """To which version."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 1, "expected_version": 3}]})

    version: Annotated[int | None, Field(ge=1, lt=2**31, description="Without one: that before the last change.")] = (
        None
    )
    expected_version: ExpectedVersion = None


class AliasOut(BaseModel):
    """A name for a model, or for several."""

    model_config = ConfigDict(json_schema_extra={"examples": [ALIAS_EXAMPLE]})

    object: Literal["alias"] = "alias"
    name: str
    targets: Annotated[dict[str, int], Field(description="Names of models with their weights.")]
    version: Annotated[int, Field(description="Grows by 1 with every change.")]
    created_at: int
    updated_at: int

    @property
    def id(self) -> str:
        """What pages of lists go by."""
        return self.name

    @classmethod
    def of(cls, alias: Alias) -> Self:
        """The alias's row as a client sees it."""
        return cls(
            name=alias.name,
            targets={target.name: target.weight for target in alias.targets},
            version=alias.version,
            created_at=alias.created_at,
            updated_at=alias.updated_at,
        )


class VersionOut(BaseModel):
    """What an alias has stood for since a change of it."""

    object: Literal["alias.version"] = "alias.version"
    version: int
    targets: Annotated[dict[str, int], Field(description="Empty: it was deleted.")]
    restored: Annotated[int | None, Field(description="The version that a roll-back brought back.")]
    created_at: int
    key_id: Annotated[str, Field(description="The API key that made the change.")]
    key_name: str

    @classmethod
    def of(cls, change: Change) -> Self:
        """The version's row, and who made it, as a client sees them."""
        row = change.version
        return cls(
            version=row.version,
            targets=row.targets,
            restored=row.restored,
            created_at=row.created_at,
            key_id=row.key_id,
            key_name=change.key_name,
        )


class AliasHistory(BaseModel):
    """The versions that are kept: this list has one page."""

    object: Literal["list"] = "list"
    data: list[VersionOut]
    has_more: Literal[False] = False
