"""Trained adapters: what jobs publish. `registry.references` finds what a client names, checkpoints included."""

from collections.abc import Sequence

from sqlalchemy import Select, or_, select, update
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from registry.context import Registry
from registry.errors import Conflict, NotFound
from registry.models import TERMINAL, Adapter, Job
from registry.paging import Order, Page, fetch_page
from registry.tenants import Principal


def get(session: Session, principal: Principal, id_or_name: str, *, param: str = "adapter_id") -> Adapter:
    """An adapter of the tenant's, by `adp-…` or `ft:…`. Raises `NotFound`, naming the field `param`."""
    adapter = session.scalars(_named(principal, id_or_name)).one_or_none()
    if adapter is None:
        raise _not_found(id_or_name, param)
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

    Raises `NotFound`, and `Conflict` while a live job begins with it.
    """
    with registry.transaction() as session:
        adapter = session.scalars(_named(principal, id_or_name).with_for_update()).one_or_none()
        if adapter is None:
            raise _not_found(id_or_name, "adapter_id")
        user = live_users(session, [adapter.id]).get(adapter.id)
        if user is not None:
            raise Conflict(
                f"the job {user}, which has not ended, begins with the adapter {id_or_name!r}",
                code="adapter_in_use",
                next_action=f"wait for {user} or cancel it",
            )
        remove(session, [adapter.id])
    registry.store.delete(adapter.object_key)
    return adapter


def live_users(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """The adapters and checkpoints of these that a job begins with which has not ended, each with such a job's id.

    Ask once their rows are locked: `registry.jobs.submit` has then either been here before, with its job, or waits.
    """
    users = select(Job.from_adapter_id, Job.id).where(Job.status.not_in(TERMINAL), Job.from_adapter_id.in_(ids))
    return {str(begun_with): job_id for begun_with, job_id in session.execute(users)}


def remove(session: Session, adapter_ids: Sequence[str]) -> Sequence[str]:
    """Deletes adapters' rows and returns the keys of their objects, to be deleted once that has committed."""
    removed = session.execute(
        delete_rows(Adapter).where(Adapter.id.in_(adapter_ids)).returning(Adapter.job_id, Adapter.object_key)
    ).all()
    session.execute(update(Job).where(Job.id.in_([row.job_id for row in removed])).values(adapter_id=None))
    return [row.object_key for row in removed]


def _of(principal: Principal) -> Select[Adapter]:
    return select(Adapter).where(Adapter.tenant_id == principal.tenant_id)


def _named(principal: Principal, id_or_name: str) -> Select[Adapter]:
    return _of(principal).where(or_(Adapter.id == id_or_name, Adapter.name == id_or_name))


def _not_found(id_or_name: str, param: str) -> NotFound:
    return NotFound(
        f"no adapter {id_or_name!r}",
        param=param,
        code="adapter_not_found",
        next_action="list the adapters for their ids and names",
    )
