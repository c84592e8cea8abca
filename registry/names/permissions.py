"""Permissions: another tenant may call an adapter or a checkpoint, and do nothing else with it.

OpenAI's clients call tenants projects, and give a permission to one by its id.
"""

from collections.abc import Sequence

from sqlalchemy import Select, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry import audit
from registry.errors import InvalidRequest, NotFound
from registry.ids import new_id
from registry.models import Adapter, Checkpoint, Job, Tenant
from registry.names.tables import Permission
from registry.paging import Order, Page, fetch_page
from registry.references import AdapterRef, find
from registry.tenants import Principal

_NAME = "checkpoint"


def grant(session: Session, principal: Principal, name: str, project_ids: Sequence[str]) -> Sequence[Permission]:
    """Lets these tenants call the principal's adapter or checkpoint. Doing it twice is fine.

    Raises:
        NotFound: no such adapter or checkpoint of the tenant's, or no such tenant.
        InvalidRequest: one of them is the tenant itself.
    """
    ref = _own(session, principal, name)
    known = set(session.scalars(select(Tenant.id).where(Tenant.id.in_(project_ids))))
    for project_id in project_ids:
        if project_id not in known:
            raise NotFound(
                f"no project {project_id!r}",
                param="project_ids",
                code="project_not_found",
                next_action="send the id of a tenant, tenant-…: its admin reads it in GET /keys as `tenant_id`",
            )
        if project_id == principal.tenant_id:
            raise InvalidRequest(
                f"{project_id!r} is your own tenant, which may call it anyway",
                param="project_ids",
                code="invalid_value",
            )
    wanted = [*dict.fromkeys(project_ids)]
    rows = [
        {"id": new_id("cp_"), "tenant_id": principal.tenant_id, "target": ref.id, "project_id": project_id}
        for project_id in wanted
    ]
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(
        dialect.insert(Permission).values(rows).on_conflict_do_nothing(index_elements=["target", "project_id"])
    )
    audit.record(session, principal, "adapter.shared", _kind(ref), ref.id, with_tenants=wanted)
    given = session.scalars(_of(principal, ref).where(Permission.project_id.in_(wanted))).all()
    return sorted(given, key=lambda permission: wanted.index(permission.project_id))


def list(
    session: Session,
    principal: Principal,
    name: str,
    *,
    project_id: str | None = None,
    after: str | None = None,
    limit: int = 10,
    order: Order = "desc",
) -> Page[Permission]:
    """A page of the permissions to call the principal's adapter or checkpoint. Raises `NotFound`."""
    ref = _own(session, principal, name)
    statement = _of(principal, ref)
    if project_id is not None:
        statement = statement.where(Permission.project_id == project_id)
    start = None if after is None else _get(session, principal, ref, after, "after")
    position = None if start is None else (start.created_at, start.id)
    return fetch_page(
        session, statement, (Permission.created_at, Permission.id), after=position, limit=limit, order=order
    )


def revoke(session: Session, principal: Principal, name: str, permission_id: str) -> None:
    """Takes a permission back: from now on that tenant finds no such model. Raises `NotFound`."""
    ref = _own(session, principal, name)
    permission = _get(session, principal, ref, permission_id, "permission_id")
    session.delete(permission)
    audit.record(session, principal, "adapter.unshared", _kind(ref), ref.id, with_tenants=[permission.project_id])


def shared_with(session: Session, principal: Principal) -> Sequence[tuple[AdapterRef, str]]:
    """What other tenants let this one call, newest permission first, each with its owner's name."""
    mine = (Permission.project_id == principal.tenant_id, Permission.tenant_id != principal.tenant_id)
    newest_first = (Permission.created_at.desc(), Permission.id.desc())
    found = session.execute(
        select(Tenant.name, Adapter, Checkpoint, Job)
        .select_from(Permission)
        .join(Tenant, Tenant.id == Permission.tenant_id)
        .outerjoin(Adapter, Adapter.id == Permission.target)
        .outerjoin(Checkpoint, Checkpoint.id == Permission.target)
        .outerjoin(Job, Job.id == Checkpoint.job_id)
        .where(*mine)
        .order_by(*newest_first)
    ).all()
    shared = []
    for owner, adapter, checkpoint, job in found:
        if adapter is not None:
            shared.append((AdapterRef.of(adapter), owner))
        elif checkpoint is not None:
            shared.append((AdapterRef.of_checkpoint(owner, job, checkpoint), owner))
    return shared


def forget_gone(session: Session) -> None:
    """Deletes the permissions to call what has been deleted."""
    session.execute(
        delete(Permission).where(
            Permission.target.not_in(select(Adapter.id)), Permission.target.not_in(select(Checkpoint.id))
        )
    )


def _kind(ref: AdapterRef) -> audit.TargetKind:
    return "checkpoint" if ref.is_checkpoint else "adapter"


def _own(session: Session, principal: Principal, name: str) -> AdapterRef:
    ref = find(session, principal, name)
    if ref is None:
        raise NotFound(
            f"no adapter or checkpoint {name!r} of yours",
            param=_NAME,
            code="checkpoint_not_found",
            next_action="list the models, or a job's checkpoints, for their names",
        )
    return ref


def _get(session: Session, principal: Principal, ref: AdapterRef, permission_id: str, param: str) -> Permission:
    found = session.scalars(_of(principal, ref).where(Permission.id == permission_id)).one_or_none()
    if found is None:
        raise NotFound(
            f"no permission {permission_id!r} of {ref.name!r}",
            param=param,
            code="permission_not_found",
            next_action="list the permissions for their ids",
        )
    return found


def _of(principal: Principal, ref: AdapterRef) -> Select[Permission]:
    return select(Permission).where(Permission.tenant_id == principal.tenant_id, Permission.target == ref.id)
