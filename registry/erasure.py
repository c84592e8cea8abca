"""Erases a tenant: everything that is its own, row by row and object by object.

`begin` shuts it out for good, in one transaction. What follows is done in steps that may each be repeated, by whoever
comes: the request that began it, and every worker, until it is done. Objects go before the rows that name them, so that
a crash in between leaves the rows to find them by; the tenant's own row goes last. Which tables have rows of a tenant
is told by their foreign keys, so a new table is erased without anybody remembering.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, false, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry import audit, tenants, uploads
from registry.context import Registry
from registry.db import now, now_seconds
from registry.errors import Conflict, InvalidRequest
from registry.models import TERMINAL, Adapter, ApiKey, Base, Checkpoint, File, Job, Tenant
from registry.tenants import Principal
from registry.upload_tables import Upload, UploadPart

LEASE_SECONDS = 60.0
"""How long whoever erases may be silent before another goes on."""

KEPT = frozenset({"audit_log"})
"""Tables whose rows outlive their tenant."""

_BATCH = 500


@dataclass(frozen=True)
class Begun:
    """A tenant that is being erased, and the jobs of its that had not ended."""

    tenant: Tenant
    live_jobs: Sequence[str]


def begin(session: Session, principal: Principal, id_or_name: str, *, confirm: str, cancel_jobs: bool) -> Begun:
    """Shuts a tenant out for good: from the commit on none of its keys works, and it is only a matter of time.

    Doing it twice is fine.

    Raises:
        InvalidRequest: `confirm` is not the tenant's name.
        Conflict: it is the principal's own, or it has live jobs and `cancel_jobs` is not set.
        NotFound, Forbidden.
    """
    tenant = tenants.get_tenant(session, principal, id_or_name)
    session.refresh(tenant, with_for_update=True)
    if confirm != tenant.name:
        raise InvalidRequest(
            f"{confirm!r} is not the name of this tenant, which is {tenant.name!r}",
            param="confirm",
            code="not_confirmed",
            next_action="send the tenant's name: all of its files, jobs, adapters and keys are deleted for good",
        )
    if tenant.id == principal.tenant_id:
        raise Conflict(
            f"{tenant.name!r} is the tenant of the key that asks",
            param="tenant",
            code="own_tenant",
            next_action="use an operator's key of another tenant",
        )
    live = session.scalars(
        select(Job.id).where(Job.tenant_id == tenant.id, Job.status.not_in(TERMINAL), Job.probe_steps.is_(None))
    ).all()
    if live and not cancel_jobs:
        raise Conflict(
            f"{len(live)} jobs of {tenant.name!r} have not ended: {', '.join(live[:10])}{', …' if live[10:] else ''}",
            code="live_jobs",
            next_action="wait for them, or send cancel_jobs=true, which ends them with the tenant",
        )
    if tenant.erasing_since is None:
        at = session.scalars(select(now_seconds())).one()
        tenant.erasing_since = at
        tenant.suspended_at = tenant.suspended_at or at
        session.execute(
            update(ApiKey).where(ApiKey.tenant_id == tenant.id, ApiKey.revoked_at.is_(None)).values(revoked_at=at)
        )
        facts: dict[str, Any] = {"name": tenant.name, "live_jobs": list(live[:100])}
        audit.record(session, principal, "tenant.erasing", "tenant", tenant.id, owner_id=tenant.id, **facts)
    return Begun(tenant, live)


def any_begun(session: Session) -> bool:
    """Whether there is something for `go_on`; it only reads."""
    return session.scalars(select(Tenant.id).where(_is_due()).limit(1)).one_or_none() is not None


def go_on(registry: Registry, tenant_id: str | None = None) -> None:
    """Erases tenants as far as that is possible now, or this one; jobs that run are waited for another time."""
    while (tenant := _claim(registry, tenant_id)) is not None:
        if not _erase(registry, tenant):
            return


def _is_due() -> ColumnElement[bool]:
    free = or_(Tenant.erasure_lease.is_(None), Tenant.erasure_lease < now())
    runs = select(Job.id).where(Job.tenant_id == Tenant.id, Job.status == "running").exists()
    return Tenant.erasing_since.is_not(None) & free & ~runs


def _claim(registry: Registry, tenant_id: str | None) -> str | None:
    due = select(Tenant.id).where(_is_due())
    if tenant_id is not None:
        due = due.where(Tenant.id == tenant_id)
    with registry.transaction() as session:
        found = session.scalars(due.limit(1).with_for_update(skip_locked=True)).one_or_none()
        if found is not None:
            _renew(session, found)
    return found


def _renew(session: Session, tenant_id: str) -> None:
    session.execute(update(Tenant).where(Tenant.id == tenant_id).values(erasure_lease=now() + LEASE_SECONDS))


def _erase(registry: Registry, tenant_id: str) -> bool:
    """Whether nothing is left."""
    renewed = time.monotonic()
    for key in _object_keys(registry, tenant_id):
        registry.store.delete(key)
        if time.monotonic() > renewed + LEASE_SECONDS / 4:
            with registry.transaction() as session:
                _renew(session, tenant_id)
            renewed = time.monotonic()
    for table in owned_tables():
        while True:
            with registry.transaction() as session:
                _renew(session, tenant_id)
                if not session.execute(_delete_some(table, tenant_id)).rowcount:  # type: ignore[attr-defined]
                    break
    try:
        with registry.transaction() as session:
            begun = audit.latest(session, "tenant.erasing", tenant_id)
            gone = session.scalars(delete(Tenant).where(Tenant.id == tenant_id).returning(Tenant.id)).all()
            if gone:  # else another one has come to its end before
                audit.record(session, begun, "tenant.deleted", "tenant", tenant_id, owner_id=tenant_id)
    except IntegrityError:  # a request that had begun before has added something: once more
        with registry.transaction() as session:
            session.execute(update(Tenant).where(Tenant.id == tenant_id).values(erasure_lease=None))
        return False
    return True


def _object_keys(registry: Registry, tenant_id: str) -> Iterator[str]:
    """Of all that the tenant has in the store: what rows name, and what was put there and has no row."""
    with registry.reading() as session:
        jobs = session.scalars(select(Job.id).where(Job.tenant_id == tenant_id)).all()
        of_uploads = session.scalars(select(Upload.id).where(Upload.tenant_id == tenant_id)).all()
        keys = {
            *session.scalars(select(File.object_key).where(File.tenant_id == tenant_id)),
            *session.scalars(select(Adapter.object_key).where(Adapter.tenant_id == tenant_id)),
            *session.scalars(select(Checkpoint.object_key).join(Job).where(Job.tenant_id == tenant_id)),
            *session.scalars(select(Checkpoint.adapter_key).join(Job).where(Job.tenant_id == tenant_id)),
            *session.scalars(select(UploadPart.object_key).join(Upload).where(Upload.tenant_id == tenant_id)),
        }
    yield from (key for key in keys if key is not None)
    folders = [f"{kind}/{owner}" for kind in ("adapters", "checkpoints", "results") for owner in (*jobs, tenant_id)]
    folders += [f"files/{tenant_id}", *(f"{uploads.FOLDER}/{upload}" for upload in of_uploads)]
    for folder in folders:
        for found in registry.store.list(folder):
            yield found.key


def owned_tables() -> list[Table]:
    """The tables with rows of tenants, those that refer to others first."""
    return [
        table
        for table in reversed(Base.metadata.sorted_tables)
        if table.name not in KEPT and table is not Tenant.__table__ and owned_by(table, "") is not None
    ]


def _delete_some(table: Table, tenant_id: str) -> Any:
    owned = owned_by(table, tenant_id)
    assert owned is not None
    keys = table.primary_key.columns
    some = select(*keys).where(owned).limit(_BATCH)
    return delete(table).where(tuple_(*keys).in_(some))


def owned_by(table: Table, tenant_id: str) -> ColumnElement[bool] | None:
    """That a row is the tenant's: it says so itself, or refers to one that is. None where no row is any tenant's."""
    own = [key.parent for key in table.foreign_keys if key.column.table is Tenant.__table__]
    if "tenant_id" in table.columns:
        own.append(table.columns["tenant_id"])
    if own:
        return or_(*(column == tenant_id for column in own))
    through = []
    for key in table.foreign_keys:
        owned = None if key.column.table is table else owned_by(key.column.table, tenant_id)
        if owned is not None:
            through.append(key.parent.in_(select(key.column).where(owned)))
    return or_(false(), *through) if through else None
