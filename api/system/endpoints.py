"""What an operator wants to know of the whole installation now."""

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from api.deps import OperatorDep, ServicesDep
from api.schemas import errors
from api.services import Services
from api.system.schemas import SystemOut
from registry.fleet import Fleet, look
from registry.tenants import Principal

router = APIRouter(prefix="/system", tags=["system"])


@router.get("", summary="Look at the installation", responses=errors(401, 403))
async def get_system(services: ServicesDep, principal: OperatorDep) -> SystemOut:
    """Workers, inference servers and how full they are, jobs that wait, and tokens a second, all tenants' together.

    A server that does not answer within two seconds is there with `answers: false`.
    """
    loads = await services.gateway.loads()
    fleet = await run_in_threadpool(_look, services, principal)
    return SystemOut.of(fleet, [loads[url] for url in services.gateway.urls])


def _look(services: Services, principal: Principal) -> Fleet:
    with services.registry.reading() as session:
        return look(session, principal, services.settings.lease_seconds)
