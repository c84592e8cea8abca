"""What the service sends to admins and operators only; `osora.schemas` has these too."""

from typing import Any, TypedDict


class TenantDeletion(TypedDict):
    id: str
    deleted: bool
    cancelled_jobs: list[str]


class AuditRecord(TypedDict):
    """Something that was done."""

    id: str
    created_at: int
    action: str
    tenant_id: str | None
    """Whose the target is; None: the installation's."""
    actor: dict[str, str | None]
    """`tenant_id` and `key_id`; both None where the service acted by a setting."""
    target: dict[str, str]
    """`kind` and `id`."""
    address: str | None
    request_id: str | None
    facts: dict[str, Any]
