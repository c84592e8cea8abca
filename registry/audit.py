"""The audit log: who did what, to what, when and from where. It is only ever added to.

A record is written in the transaction of the act, so that there are both or neither. It holds ids, sizes and settings;
never a secret, a file's name, training text or a prompt: those have to go when a tenant deletes them, and it stays.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.audit_tables import AuditRecord
from registry.ids import new_id

Action = Literal[
    "adapter.deleted",
    "adapter.downloaded",
    "adapter.imported",
    "adapter.shared",
    "adapter.unshared",
    "alias.deleted",
    "alias.rolled_back",
    "alias.set",
    "audit.trimmed",
    "authentication.refused",
    "base.added",
    "base.removed",
    "basis.downloaded",
    "checkpoint.deleted",
    "file.deleted",
    "file.downloaded",
    "job.cancelled",
    "key.created",
    "key.refused",
    "key.revoked",
    "limits.changed",
    "tenant.created",
    "tenant.deleted",
    "tenant.erasing",
    "tenant.resumed",
    "tenant.suspended",
    "webhook.changed",
    "webhook.created",
    "webhook.deleted",
    "webhook.secret_rotated",
]
"""What is recorded. One that is added gets its line in docs/security.md."""

TargetKind = Literal[
    "adapter", "alias", "audit_log", "base", "checkpoint", "file", "installation", "job", "key", "tenant", "webhook"
]


class Actor(Protocol):
    """Who acts: a `registry.tenants.Principal`."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def key_id(self) -> str: ...


@dataclass(frozen=True)
class Origin:
    """Where a request came from."""

    address: str | None
    """The client's, by the setting for trusted proxies."""
    request_id: str | None


ORIGIN: ContextVar[Origin | None] = ContextVar("osora_origin", default=None)
"""The request that is being carried out; None outside of the API."""


def record(
    session: Session,
    principal: Actor | None,
    action: Action,
    target_kind: TargetKind,
    target_id: str,
    *,
    owner_id: str | None = None,
    **facts: Any,
) -> None:
    """Adds a record to the caller's transaction.

    Args:
        principal: who acts; None for the service itself.
        owner_id: the id of the tenant whose target it is, if that is not the principal's.
        facts: what else is worth knowing, as JSON takes it: never secrets, names of files or training text.
    """
    _add(
        session,
        tenant_id=owner_id or (principal and principal.tenant_id),
        actor_tenant_id=principal and principal.tenant_id,
        key_id=principal and principal.key_id,
        action=action,
        target_kind=target_kind,
        target_id=target_id,
        facts=facts,
    )


@dataclass(frozen=True)
class PastActor:
    """Who acted, as a record tells it."""

    tenant_id: str
    key_id: str


def latest(session: Session, action: Action, target_id: str) -> PastActor | None:
    """Who last did this to that; None if nobody has, or the service itself."""
    of_target = select(AuditRecord).where(AuditRecord.action == action, AuditRecord.target_id == target_id)
    found = session.scalars(of_target.order_by(AuditRecord.at.desc(), AuditRecord.id.desc()).limit(1)).one_or_none()
    if found is None or found.actor_tenant_id is None or found.key_id is None:
        return None
    return PastActor(found.actor_tenant_id, found.key_id)


def announce_trimming(session: Session, before: int, **facts: Any) -> None:
    """Records that everything from before that time may be deleted from now on."""
    _add(
        session,
        action="audit.trimmed",
        target_kind="audit_log",
        target_id="audit_log",
        trimmed_before=before,
        facts={"before": before, **facts},
    )


def _add(session: Session, **values: Any) -> None:
    origin = ORIGIN.get()
    where = {} if origin is None else {"address": origin.address, "request_id": origin.request_id}
    session.add(AuditRecord(id=new_id("audit-"), **where, **values))
    session.flush()
