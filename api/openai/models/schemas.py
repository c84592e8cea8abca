"""Models as OpenAI shapes them: bases, and the tenant's adapters."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from registry.names.tables import Alias
from registry.references import Target
from registry.tenants import Principal

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
                }
            ]
        }
    )

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="0 for a base: it has been there from the start.")]
    owned_by: Annotated[str, Field(description=f"The tenant; `{_OF_THE_SERVICE}` for a base.")]

    @classmethod
    def of(cls, principal: Principal, target: Target) -> Self:
        """A base, or what the tenant has trained on it."""
        if target.adapter is None:
            return cls(id=target.base, created=0, owned_by=_OF_THE_SERVICE)
        return cls(id=target.adapter.name, created=target.adapter.created_at, owned_by=principal.tenant_name)

    @classmethod
    def of_alias(cls, principal: Principal, alias: Alias) -> Self:
        """A name of the tenant's own for one of those."""
        return cls(id=alias.name, created=alias.created_at, owned_by=principal.tenant_name)


class ModelList(BaseModel):
    """All of them: OpenAI's clients ask for no second page."""

    object: Literal["list"] = "list"
    data: list[ModelOut]
