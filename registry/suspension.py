"""Suspended tenants: nobody gets in, nothing of theirs runs, and all of it is there when they are resumed.

Their keys are refused (`tenants.authenticate`), their queued jobs have no turn (`jobs.turns`), and those that run are
given back to the queue, with a checkpoint, when their worker next looks (`jobs.lease`).
"""

from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit, outbox, tenants
from registry.db import now_seconds
from registry.errors import Conflict
from registry.models import Job, Tenant
from registry.tenants import Principal


def suspend(session: Session, principal: Principal, id_or_name: str) -> Tenant:
    """Shuts a tenant out; doing it twice is fine.

    Raises:
        NotFound, Forbidden. Conflict: it is the principal's own, who could not take it back.
    """
    tenant = _lock(session, principal, id_or_name)
    if tenant.id == principal.tenant_id:
        raise Conflict(
            f"{tenant.name!r} is the tenant of the key that asks, which would shut itself out",
            param="tenant",
            code="own_tenant",
            next_action="use an operator's key of another tenant, or revoke keys instead",
        )
    if tenant.suspended_at is None:
        tenant.suspended_at = cast(int, now_seconds())
        audit.record(session, principal, "tenant.suspended", "tenant", tenant.id, owner_id=tenant.id)
        session.flush()
    return tenant


def resume(session: Session, principal: Principal, id_or_name: str) -> Tenant:
    """Lets a tenant in again and wakes workers for its jobs; twice is fine.

    Raises `NotFound`, `Forbidden`, and `Conflict` for one that is being deleted.
    """
    tenant = _lock(session, principal, id_or_name)
    if tenant.erasing_since is not None:
        raise Conflict(f"{tenant.name!r} is being deleted", param="tenant", code="tenant_erasing")
    if tenant.suspended_at is not None:
        tenant.suspended_at = None
        waiting = select(Job).where(Job.tenant_id == tenant.id, Job.status == "queued").with_for_update()
        for job in session.scalars(waiting):
            outbox.enqueue(session, job)
        audit.record(session, principal, "tenant.resumed", "tenant", tenant.id, owner_id=tenant.id)
        session.flush()
    return tenant


def _lock(session: Session, principal: Principal, id_or_name: str) -> Tenant:
    tenant = tenants.get_tenant(session, principal, id_or_name)
    session.refresh(tenant, with_for_update=True)
    return tenant
