"""Tenants, as an operator sees them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import NO_NUL, Name, QueryModel, RequestModel
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
    erasing_since: int | None
    """Since when it is being deleted."""

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        """The tenant's row as a client sees it."""
        return cls(
            id=tenant.id,
            name=tenant.name,
            created_at=tenant.created_at,
            suspended_at=tenant.suspended_at,
            erasing_since=tenant.erasing_since,
        )


class DeleteTenant(QueryModel):
    """A deletion, which nothing takes back."""

    confirm: Annotated[Name, Field(examples=["acme"], description="The tenant's name, to make sure.")]
    cancel_jobs: Annotated[
        bool, Field(description="Whether jobs that have not ended end with it. Otherwise they are a 409.")
    ] = False


class TenantDeletion(BaseModel):
    """How far a tenant's deletion is."""

    id: str
    object: Literal["tenant"] = "tenant"
    deleted: bool
    """False: none of its keys works any more, and workers delete the rest once its jobs have stopped."""
    cancelled_jobs: list[str]
    """Those that had not ended."""
