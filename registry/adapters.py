"""Adapters: of jobs, and brought by tenants. `registry.references` finds what a client names, checkpoints included."""

from collections.abc import Sequence

from sqlalchemy import Select, or_, select, update
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from registry import audit
from registry.context import Registry
from registry.errors import NotFound
from registry.holds import refuse_if_held
from registry.models import Adapter, Job
from registry.paging import Order, Page, fetch_page
from registry.scrubbing import scrub_adapters
from registry.tenants import Principal


def get(session: Session, principal: Principal, id_or_name: str, *, param: str = "adapter_id") -> Adapter:
    """An adapter of the tenant's, by `adp-…` or `ft:…`. Raises `NotFound`, naming the field `param`."""
    adapter = session.scalars(_named(principal, id_or_name)).one_or_none()
    if adapter is None:
        raise not_found(id_or_name, param)
    return adapter


def list(
    session: Session,
    principal: Principal,
    *,
    base: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page[Adapter]:
    """A page of the tenant's adapters. Raises `NotFound` when `after` is none of them."""
    statement = _of(principal)
    if base is not None:
        statement = statement.where(Adapter.base == base)
    start = None if after is None else get(session, principal, after, param="after")
    position = None if start is None else (start.created_at, start.id)
    keys = (Adapter.created_at, Adapter.id)
    return fetch_page(session, statement, keys, after=position, limit=limit, order=order)


def everything(session: Session, principal: Principal) -> Sequence[Adapter]:
    """All of the tenant's adapters, newest first."""
    return session.scalars(_of(principal).order_by(Adapter.created_at.desc(), Adapter.id.desc())).all()


def delete(registry: Registry, principal: Principal, id_or_name: str) -> Adapter:
    """Deletes an adapter, row and bytes, and returns what it was. Its job keeps the name it had.

    Raises `NotFound`, and `Conflict` while a live job begins with it or an alias names it.
    """
    with registry.transaction() as session:
        adapter = session.scalars(_named(principal, id_or_name).with_for_update()).one_or_none()
        if adapter is None:
            raise not_found(id_or_name, "adapter_id")
        refuse_if_held(session, adapter.id, id_or_name, code="adapter_in_use")
        remove(session, principal, [adapter.id])
    registry.store.delete(adapter.object_key)
    return adapter


def remove(session: Session, principal: Principal | None, adapter_ids: Sequence[str]) -> Sequence[str]:
    """Deletes the rows of locked adapters that nothing holds, and what other rows hold of them. Returns the keys of
    their objects, to be deleted once that has committed.

    `principal`: who does so; None for the service itself.
    """
    removed = session.scalars(select(Adapter).where(Adapter.id.in_(adapter_ids))).all()
    scrub_adapters(session, removed)
    session.execute(delete_rows(Adapter).where(Adapter.id.in_(adapter_ids)))
    jobs = [adapter.job_id for adapter in removed if adapter.job_id is not None]
    session.execute(update(Job).where(Job.id.in_(jobs)).values(adapter_id=None))
    for adapter in removed:
        facts = {"owner_id": adapter.tenant_id, "sha256": adapter.sha256}
        audit.record(session, principal, "adapter.deleted", "adapter", adapter.id, **facts)
    return [adapter.object_key for adapter in removed]


def not_found(id_or_name: str, param: str) -> NotFound:
    """The error for what names no adapter of the tenant's."""
    return NotFound(
        f"no adapter {id_or_name!r}",
        param=param,
        code="adapter_not_found",
        next_action="list the adapters for their ids and names",
    )


def _of(principal: Principal) -> Select[Adapter]:
    return select(Adapter).where(Adapter.tenant_id == principal.tenant_id)


def _named(principal: Principal, id_or_name: str) -> Select[Adapter]:
    return _of(principal).where(or_(Adapter.id == id_or_name, Adapter.name == id_or_name))
