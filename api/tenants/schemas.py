"""Tenants, as an operator sees them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import NO_NUL, RequestModel
from registry.models import Tenant


class CreateTenant(RequestModel):
    """A new tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "acme"}]})

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            description="Of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit; a part of its models' names.",
        ),
        NO_NUL,
    ]


class TenantOut(BaseModel):
    """Whose files, jobs and adapters are whose."""

    id: str
    object: Literal["tenant"] = "tenant"
    name: str
    created_at: int
    suspended_at: int | None
    """Since when its keys are refused and its jobs wait."""

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        """The tenant's row as a client sees it."""
        return cls(id=tenant.id, name=tenant.name, created_at=tenant.created_at, suspended_at=tenant.suspended_at)
