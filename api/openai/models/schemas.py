"""Models as OpenAI shapes them: bases, and the tenant's adapters."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from registry.names.tables import Alias
from registry.references import AdapterRef

_OF_THE_SERVICE = "system"


class ModelOut(BaseModel):
    """What can be called by this `id`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
                    "object": "model",
                    "created": 1762300420,
                    "owned_by": "default",
                    "shutdown_date": "2026-01-03",
                }
            ]
        }
    )

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="0 for a base: it has been there from the start.")]
    owned_by: Annotated[str, Field(description=f"The tenant; `{_OF_THE_SERVICE}` for a base.")]
    shutdown_date: Annotated[
        str | None, Field(description="The day, in UTC, on which it is old enough to be deleted; null: it stays.")
    ]

    @classmethod
    def of_base(cls, name: str) -> Self:
        """A base on offer."""
        return cls(id=name, created=0, owned_by=_OF_THE_SERVICE, shutdown_date=None)

    @classmethod
    def of_adapter(cls, ref: AdapterRef, owner: str, expires_at: int | None) -> Self:
        """An adapter or a checkpoint of the tenant `owner`, which retention deletes at that time."""
        ends = None if expires_at is None else datetime.fromtimestamp(expires_at, UTC).date().isoformat()
        return cls(id=ref.name, created=ref.created_at, owned_by=owner, shutdown_date=ends)

    @classmethod
    def of_alias(cls, alias: Alias, owner: str) -> Self:
        """A tenant's own name for one of those. It has no end: what it names does not expire."""
        return cls(id=alias.name, created=alias.created_at, owned_by=owner, shutdown_date=None)


class ModelList(BaseModel):
    """All of them: OpenAI's clients ask for no second page."""

    object: Literal["list"] = "list"
    data: list[ModelOut]
