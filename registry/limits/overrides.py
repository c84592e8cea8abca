"""Whose limits are whose: the installation's, those of a tenant in their place, those of a key on top.

The installation's ride on the session (`registry.context`), so that services need no settings.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import audit, tenants
from registry.db import take_turns
from registry.errors import Conflict
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


def visible_tenant(session: Session, principal: Principal, tenant: str) -> str:
    """The id of the tenant that is named by id or name: one's own, for an operator any. Raises `NotFound`."""
    if tenant in (principal.tenant_id, principal.tenant_name):
        return principal.tenant_id
    if not principal.has("operator"):
        raise tenants.tenant_not_found(tenant)
    return tenants.get_tenant(session, principal, tenant).id


def set_for_tenant(session: Session, principal: Principal, tenant: str, values: Mapping[str, Any]) -> str:
    """Sets a tenant's limits in place of what was set before, nothing to leave it those of the installation.

    Returns the tenant's id. Raises `NotFound`, `Forbidden` to all but operators, and `Conflict` to one who would shut
    its own tenant out.
    """
    tenant_id = tenants.get_tenant(session, principal, tenant).id
    _keep_a_way_in(tenant_id == principal.tenant_id, f"the tenant {tenant!r}", values)
    _put(session, tenant_id, tenant_id, values)
    audit.record(session, principal, "limits.changed", "tenant", tenant_id, owner_id=tenant_id, limits=dict(values))
    return tenant_id


def set_for_key(session: Session, principal: Principal, key_id: str, values: Mapping[str, Any]) -> str:
    """Sets the limits that a key has beside its tenant's, in place of what was set before; nothing for none.

    Returns the id of its tenant. Raises `NotFound` for a key that the principal does not manage, `Forbidden` for
    an operator's, and `Conflict` for a key that would shut itself out.
    """
    key = tenants.get_key(session, principal, key_id)
    _keep_a_way_in(key.id == principal.key_id, f"the key {key.id}", values)
    if "operator" in key.scopes:
        principal.require("operator")
    _put(session, key.tenant_id, key.id, values)
    audit.record(session, principal, "limits.changed", "key", key.id, owner_id=key.tenant_id, limits=dict(values))
    return key.tenant_id


def _keep_a_way_in(is_own: bool, whose: str, values: Mapping[str, Any]) -> None:
    """Raises `Conflict` where no request could take back what this one sets."""
    if is_own and values.get("requests_per_minute") == 0:
        raise Conflict(
            f"{whose} is that of the request: with requests_per_minute=0 it could never be changed again",
            param="requests_per_minute",
            code="own_limit",
            next_action="set 1 or more, or do it with a key of another tenant",
        )


def _put(session: Session, tenant_id: str, owner_id: str, values: Mapping[str, Any]) -> None:
    take_turns(session, f"limits {owner_id}")
    row = session.get(LimitOverride, owner_id)
    if row is not None and not values:
        session.delete(row)
    elif row is not None:
        row.values = dict(values)
    elif values:
        session.add(LimitOverride(owner_id=owner_id, tenant_id=tenant_id, values=dict(values)))
    session.flush()


def _stored(session: Session, owner_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    rows = session.execute(
        select(LimitOverride.owner_id, LimitOverride.values).where(LimitOverride.owner_id.in_(owner_ids))
    )
    return {row.owner_id: row[1] for row in rows}
