"""Limits of tenants, which an operator sets, and of keys, which their tenant's admin sets within those."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy.orm import Session

from api.deps import AdminDep, OperatorDep, ReaderDep, ReadSessionDep, ServicesDep
from api.json_body import JsonRoute
from api.limits.schemas import KeyLimits, LimitsOut, TenantLimits
from api.schemas import errors
from api.tenants.endpoints import TenantName
from registry import tenants
from registry.limits import budgets, overrides, quotas
from registry.limits.values import Limits, Owner

router = APIRouter(tags=["limits"], route_class=JsonRoute)

KeyId = Annotated[str, Path(examples=["key-01k9v2m4x7abcdefghjkmnpqrs"])]


@router.get("/tenants/{tenant}/limits", summary="Get a tenant's limits", responses=errors(401, 403, 404))
def get_tenant_limits(tenant: TenantName, session: ReadSessionDep, principal: ReaderDep) -> LimitsOut:
    """What a tenant may take, and takes: your own, as an operator any."""
    return _of_tenant(session, overrides.visible_tenant(session, principal, tenant))


@router.put("/tenants/{tenant}/limits", summary="Set a tenant's limits", responses=errors(400, 401, 403, 404, 409))
def set_tenant_limits(
    tenant: TenantName, body: TenantLimits, services: ServicesDep, principal: OperatorDep
) -> LimitsOut:
    """Puts these limits in the place of all that were set before. They hold within two seconds."""
    with _changing(services) as session:
        return _of_tenant(session, overrides.set_for_tenant(session, principal, tenant, body.values()))


@router.delete("/tenants/{tenant}/limits", summary="Reset a tenant's limits", responses=errors(401, 403, 404))
def reset_tenant_limits(tenant: TenantName, services: ServicesDep, principal: OperatorDep) -> LimitsOut:
    """Leaves a tenant the installation's limits. Doing it twice is fine."""
    with _changing(services) as session:
        return _of_tenant(session, overrides.set_for_tenant(session, principal, tenant, {}))


@router.get("/keys/{key_id}/limits", summary="Get a key's limits", responses=errors(401, 403, 404))
def get_key_limits(key_id: KeyId, session: ReadSessionDep, principal: AdminDep) -> LimitsOut:
    """What a key may take, beside what its tenant may."""
    return _of_key(session, tenants.get_key(session, principal, key_id).tenant_id, key_id)


@router.put("/keys/{key_id}/limits", summary="Set a key's limits", responses=errors(400, 401, 403, 404, 409))
def set_key_limits(key_id: KeyId, body: KeyLimits, services: ServicesDep, principal: AdminDep) -> LimitsOut:
    """Puts these limits in the place of all that the key had. Its tenant's hold as well, whatever is set here."""
    return _set_for_key(services, principal, key_id, body.values())


@router.delete("/keys/{key_id}/limits", summary="Reset a key's limits", responses=errors(401, 403, 404))
def reset_key_limits(key_id: KeyId, services: ServicesDep, principal: AdminDep) -> LimitsOut:
    """Leaves a key its tenant's limits alone. Doing it twice is fine."""
    return _set_for_key(services, principal, key_id, {})


def _set_for_key(services: ServicesDep, principal: AdminDep, key_id: str, values: Mapping[str, Any]) -> LimitsOut:
    with _changing(services) as session:
        tenant_id = overrides.set_for_key(session, principal, key_id, values)
        return _of_key(session, tenant_id, key_id)


@contextmanager
def _changing(services: ServicesDep) -> Iterator[Session]:
    """A transaction, and once it has committed, no limit of before is remembered."""
    with services.registry.transaction() as session:
        yield session
    services.limits.changed()


def _of_tenant(session: Session, tenant_id: str) -> LimitsOut:
    owner = overrides.of_tenant(session, tenant_id)
    used = {**quotas.used(session, tenant_id), **budgets.used(session, owner)}
    return LimitsOut.of(tenant_id, owner.limits, overrides.stored(session, tenant_id), used)


def _of_key(session: Session, tenant_id: str, key_id: str) -> LimitsOut:
    stored = overrides.stored(session, key_id)
    limits = Limits().but(stored)
    spent = budgets.used(session, Owner("key", key_id, tenant_id, limits))
    return LimitsOut.of(key_id, limits, stored, {"tokens_per_month": spent["tokens_per_month"]})
