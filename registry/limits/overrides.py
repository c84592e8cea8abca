"""Whose limits are whose: the installation's, those of a tenant in their place, those of a key on top.

The installation's ride on the session (`registry.context`), so that services need no settings.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.limits.tables import LimitOverride
from registry.limits.values import Limits, Owner
from registry.tenants import Principal


def of_tenants(session: Session, tenant_ids: Collection[str]) -> list[Owner]:
    """The limits that hold for tenants."""
    common: Limits = session.info["limits"]
    found = _stored(session, tenant_ids)
    return [Owner("tenant", id, id, common.but(found.get(id, {}))) for id in tenant_ids]


def of_tenant(session: Session, tenant_id: str) -> Owner:
    """The limits that hold for a tenant."""
    return of_tenants(session, [tenant_id])[0]


def of_principal(session: Session, principal: Principal) -> tuple[Owner, ...]:
    """All whose limits hold for a request: its tenant, and its key where that has some of its own."""
    common: Limits = session.info["limits"]
    tenant_id, key_id = principal.tenant_id, principal.key_id
    found = _stored(session, (tenant_id, key_id))
    tenant = Owner("tenant", tenant_id, tenant_id, common.but(found.get(tenant_id, {})))
    if key_id not in found:
        return (tenant,)
    return tenant, Owner("key", key_id, tenant_id, Limits().but(found[key_id]))


def stored(session: Session, owner_id: str) -> dict[str, Any]:
    """What was set for a tenant or a key, by name; what is not in it was not."""
    return _stored(session, [owner_id]).get(owner_id, {})


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


def _stored(session: Session, owner_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    rows = session.execute(
        select(LimitOverride.owner_id, LimitOverride.values).where(LimitOverride.owner_id.in_(owner_ids))
    )
    return {row.owner_id: row[1] for row in rows}
