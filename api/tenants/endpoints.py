"""Tenants, which an `operator` key manages. `{tenant}` is a tenant's id or its name."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.concurrency import run_in_threadpool

from api.deps import OperatorDep, ReadSessionDep, ServicesDep, SessionDep
from api.idempotency import OnceDep
from api.json_body import JsonRoute
from api.schemas import ListPage, PageQuery, errors
from api.services import Services
from api.tenants.schemas import CreateTenant, DeleteTenant, TenantDeletion, TenantOut
from registry import erasure, suspension, tenants
from registry.models import Tenant
from registry.tenants import Principal

router = APIRouter(prefix="/tenants", tags=["tenants"], route_class=JsonRoute)

TenantName = Annotated[str, Path(examples=["acme"], description="Its name or its id.")]


@router.post("", summary="Create a tenant", responses=errors(400, 401, 403, 409))
def create_tenant(body: CreateTenant, session: SessionDep, principal: OperatorDep, once: OnceDep) -> TenantOut:
    """Makes a tenant without any key: `POST /keys` makes those."""
    return once.keep(session, TenantOut.of(tenants.create_tenant(session, principal, body.name)))


@router.get("", summary="List tenants", responses=errors(400, 401, 403, 404))
def list_tenants(
    session: ReadSessionDep, principal: OperatorDep, query: Annotated[PageQuery, Query()]
) -> ListPage[TenantOut]:
    """All tenants of the installation, newest first unless asked otherwise."""
    page = tenants.list_tenants(session, principal, **query.model_dump())
    return ListPage[TenantOut].of([TenantOut.of(tenant) for tenant in page.data], page.has_more)


@router.get("/{tenant}", summary="Get a tenant", responses=errors(401, 403, 404))
def get_tenant(tenant: TenantName, session: ReadSessionDep, principal: OperatorDep) -> TenantOut:
    """One tenant."""
    return TenantOut.of(tenants.get_tenant(session, principal, tenant))


@router.post("/{tenant}/suspend", summary="Suspend a tenant", responses=errors(401, 403, 404, 409))
def suspend_tenant(tenant: TenantName, services: ServicesDep, principal: OperatorDep) -> TenantOut:
    """Shuts a tenant out and deletes nothing. Twice is fine.

    Its keys are answered with 403, its open streams end within a second, its queued jobs wait, and those that run go
    back to the queue with what they have learned.
    """
    with services.registry.transaction() as session:
        suspended = TenantOut.of(suspension.suspend(session, principal, tenant))
    services.authenticator.forget()
    return suspended


@router.post("/{tenant}/resume", summary="Resume a tenant", responses=errors(401, 403, 404, 409))
def resume_tenant(tenant: TenantName, session: SessionDep, principal: OperatorDep) -> TenantOut:
    """Lets a suspended tenant in again; its jobs go on where they were. Twice is fine."""
    return TenantOut.of(suspension.resume(session, principal, tenant))


@router.delete(
    "/{tenant}",
    summary="Delete a tenant",
    responses={
        202: {
            "model": TenantDeletion,
            "description": "It is shut out; the rest is deleted once its jobs have stopped.",
        },
        **errors(400, 401, 403, 404, 409, 503, 507),
    },
)
async def delete_tenant(
    tenant: TenantName,
    services: ServicesDep,
    principal: OperatorDep,
    query: Annotated[DeleteTenant, Query()],
    response: Response,
) -> TenantDeletion:
    """Deletes a tenant for good, with its keys, files, jobs and adapters. The audit log keeps what was done.

    It goes on by itself if this request breaks off.
    """
    deletion = await run_in_threadpool(_delete, services, principal, tenant, query)
    response.status_code = 200 if deletion.deleted else 202
    services.forgetting.soon()
    return deletion


def _delete(services: Services, principal: Principal, tenant: str, query: DeleteTenant) -> TenantDeletion:
    registry = services.registry
    with registry.transaction() as session:
        begun = erasure.begin(session, principal, tenant, confirm=query.confirm, cancel_jobs=query.cancel_jobs)
    services.authenticator.forget()
    erasure.go_on(registry, begun.tenant.id)
    with registry.reading() as session:
        is_there = session.get(Tenant, begun.tenant.id) is not None
    return TenantDeletion(id=begun.tenant.id, deleted=not is_there, cancelled_jobs=list(begun.live_jobs))
