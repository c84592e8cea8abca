"""Whose limits are whose: the installation's, those of a tenant in their place, those of a key on top."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.limits.tables import LimitOverride
from registry.limits.values import Limits, Owner
from registry.settings import Settings
from registry.tenants import Principal


def of_tenant(session: Session, settings: Settings, tenant_id: str) -> Owner:
    """The limits that hold for a tenant."""
    return Owner("tenant", tenant_id, Limits.of(settings).but(stored(session, tenant_id) or {}))


def of_principal(session: Session, settings: Settings, principal: Principal) -> tuple[Owner, ...]:
    """All whose limits hold for a request: its tenant, and its key where that has some of its own."""
    ids = (principal.tenant_id, principal.key_id)
    rows = session.scalars(select(LimitOverride).where(LimitOverride.owner_id.in_(ids)))
    found = {row.owner_id: row.values for row in rows}
    tenant = Owner("tenant", principal.tenant_id, Limits.of(settings).but(found.get(principal.tenant_id, {})))
    if principal.key_id not in found:
        return (tenant,)
    return tenant, Owner("key", principal.key_id, Limits().but(found[principal.key_id]))


def stored(session: Session, owner_id: str) -> dict[str, Any] | None:
    """What was set for a tenant or a key; None where nothing was."""
    row = session.get(LimitOverride, owner_id)
    return None if row is None else row.values


def put(session: Session, tenant_id: str, owner_id: str, values: Mapping[str, Any]) -> None:
    """Sets the limits of a tenant, or of a key of its, in place of what was set before."""
    row = session.get(LimitOverride, owner_id, with_for_update=True)
    if row is None:
        session.add(LimitOverride(owner_id=owner_id, tenant_id=tenant_id, values=dict(values)))
    else:
        row.values = dict(values)
    session.flush()


def remove(session: Session, owner_id: str) -> None:
    """Takes back what was set; doing it twice is fine."""
    row = session.get(LimitOverride, owner_id, with_for_update=True)
    if row is not None:
        session.delete(row)
        session.flush()
