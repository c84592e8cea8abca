"""The audit log: who did what, to what, when and from where. It is only ever added to.

A record is written in the transaction of the act, so that there are both or neither. It holds ids, sizes and settings;
never a secret, a file's name, training text or a prompt: those have to go when a tenant deletes them, and it stays.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.orm import Session

from registry.audit_tables import AuditRecord
from registry.ids import new_id
from registry.tenants import Principal

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
    "basis.downloaded",
    "checkpoint.deleted",
    "file.created",
    "file.deleted",
    "file.downloaded",
    "job.cancelled",
    "key.created",
    "key.revoked",
    "key.rotated",
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
    principal: Principal | None,
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
    origin = ORIGIN.get()
    session.add(
        AuditRecord(
            id=new_id("audit-"),
            tenant_id=owner_id or (principal and principal.tenant_id),
            actor_tenant_id=principal and principal.tenant_id,
            key_id=principal and principal.key_id,
            action=action,
            target_kind=target_kind,
            target_id=target_id,
            address=origin and origin.address,
            request_id=origin and origin.request_id,
            facts=facts,
        )
    )
    session.flush()
