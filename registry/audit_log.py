"""Reading the audit log, and trimming it."""

from typing import Any

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.orm import Session

from registry import audit
from registry.audit_tables import AuditRecord
from registry.context import Registry
from registry.db import now_seconds, take_turns
from registry.errors import NotFound
from registry.models import Tenant
from registry.paging import Order, Page, fetch_page
from registry.tenants import Principal

_DAY = 86_400
_BATCH = 1000


def page(
    session: Session,
    principal: Principal,
    *,
    tenant: str | None = None,
    action: str | None = None,
    target: str | None = None,
    since: int | None = None,
    until: int | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page[AuditRecord]:
    """A page of what concerns the principal's tenant; an operator's is of all, or of the tenant that is named.

    Args:
        tenant: name, or id, which is all that is left of a tenant that was deleted.
        action: such as `key.created`, or all of a kind: `key`.
        since, until: unix seconds, the first one included.

    Raises:
        Forbidden: another tenant was named by somebody who is no operator.
        NotFound: `after` is no record that the principal may see.
    """
    if tenant not in (None, principal.tenant_name, principal.tenant_id):
        principal.require("operator")
    statement = _readable(principal)
    if tenant is not None:
        of_name = select(Tenant.id).where(Tenant.name == tenant).scalar_subquery()
        statement = statement.where(or_(AuditRecord.tenant_id == tenant, AuditRecord.tenant_id == of_name))
    if action is not None:
        of_kind = AuditRecord.action.startswith(f"{action}.", autoescape=True)
        statement = statement.where(or_(AuditRecord.action == action, of_kind))
    if target is not None:
        statement = statement.where(AuditRecord.target_id == target)
    if since is not None:
        statement = statement.where(AuditRecord.at >= since)
    if until is not None:
        statement = statement.where(AuditRecord.at < until)
    position = None if after is None else _position(session, principal, after)
    keys = (AuditRecord.at, AuditRecord.id)
    return fetch_page(session, statement, keys, after=position, limit=limit, order=order)


def trim(registry: Registry) -> int:
    """Deletes records that are older than the setting allows, in whole days (UTC), and returns how many.

    A record that says so is written first: without it, the database refuses. Those records are kept for ever.
    """
    days = registry.settings.audit_retention_days
    if days is None:
        return 0
    with registry.transaction() as session:
        take_turns(session, "audit trimming")
        before = int((session.scalars(select(now_seconds())).one() - days * _DAY) // _DAY * _DAY)
        if (session.scalar(select(func.max(AuditRecord.trimmed_before))) or 0) < before:
            count = session.scalar(_trimmable(func.count(), before)) or 0
            if count:
                audit.announce_trimming(session, before, count=count, retention_days=days)
    trimmed = 0
    while True:
        with registry.transaction() as session:
            ids = session.scalars(_trimmable(AuditRecord.id, before).limit(_BATCH)).all()
            session.execute(delete(AuditRecord).where(AuditRecord.id.in_(ids)))
        trimmed += len(ids)
        if len(ids) < _BATCH:
            return trimmed


def _trimmable(what: Any, before: int) -> Select[Any]:
    return select(what).where(AuditRecord.at < before, AuditRecord.trimmed_before.is_(None))


def _readable(principal: Principal) -> Select[AuditRecord]:
    every = select(AuditRecord)
    return every if principal.has("operator") else every.where(AuditRecord.tenant_id == principal.tenant_id)


def _position(session: Session, principal: Principal, after: str) -> tuple[int, str]:
    found = session.scalars(_readable(principal).where(AuditRecord.id == after)).one_or_none()
    if found is None:
        raise NotFound(f"no audit record {after!r}", param="after", next_action="list the records for their ids")
    return found.at, found.id
