"""Records of the audit log, as clients see them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from api.schemas import Name, PageQuery
from registry.audit_tables import AuditRecord
from registry.tenants import Principal

_Seconds = Annotated[int, Field(ge=0, le=2**53)]


class AuditQuery(PageQuery):
    """Which records."""

    tenant: Annotated[
        Name | None,
        Field(description="Name or id of the tenant concerned. Another than your own takes the scope `operator`."),
    ] = None
    action: Annotated[
        Name | None, Field(description="Such as `key.created`, or all of a kind: `key`.", examples=["key"])
    ] = None
    target: Annotated[Name | None, Field(description="Id of what it was done to; of an alias its name.")] = None
    since: Annotated[_Seconds | None, Field(description="Unix seconds: from then on.")] = None
    until: Annotated[_Seconds | None, Field(description="Unix seconds: before then.")] = None


class Actor(BaseModel):
    """Who did it: a key of a tenant. Neither is set where the service did, by a setting."""

    tenant_id: str | None
    key_id: str | None


class AuditTarget(BaseModel):
    """What it was done to."""

    kind: str
    id: str


class AuditRecordOut(BaseModel):
    """Something that was done."""

    id: str
    object: Literal["audit_record"] = "audit_record"
    created_at: int
    action: str
    tenant_id: Annotated[str | None, Field(description="Whose the target is; null: the installation's.")]
    actor: Actor
    target: AuditTarget
    address: Annotated[str | None, Field(description="Where the request came from; null if it was another tenant's.")]
    request_id: str | None
    facts: Annotated[dict[str, Any], Field(description="What else is known: sizes, scopes, formats.")]

    @classmethod
    def of(cls, row: AuditRecord, reader: Principal) -> Self:
        """The row as a reader may see it."""
        may_see_where = reader.has("operator") or row.actor_tenant_id == reader.tenant_id
        return cls(
            id=row.id,
            created_at=row.at,
            action=row.action,
            tenant_id=row.tenant_id,
            actor=Actor(tenant_id=row.actor_tenant_id, key_id=row.key_id),
            target=AuditTarget(kind=row.target_kind, id=row.target_id),
            address=row.address if may_see_where else None,
            request_id=row.request_id if may_see_where else None,
            facts=row.facts,
        )
