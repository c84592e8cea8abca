"""Is it alive, and is it of use?"""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from fastapi import APIRouter, Response
from sqlalchemy import select

from api.deps import ServicesDep
from api.health.schemas import Check, Health, Readiness
from api.services import Services
from registry import disks
from registry.models import Tenant

router = APIRouter(tags=["health"])

_PATIENCE_SECONDS = 3


@router.get("/health", summary="Is the process alive?")
async def health() -> Health:
    """Answers as long as the process does; says nothing of what it stands on."""
    return Health()


@router.get(
    "/ready",
    summary="Is the service ready?",
    responses={503: {"model": Readiness, "description": "Something that is needed is down."}},
)
async def ready(services: ServicesDep, response: Response) -> Readiness:
    """Looks at database, object store, free disk space, inference servers and broker; 503 if a needed one is down."""
    # However many ask at once, and without a key, it is looked once for all of them.
    look = services.looks.begin("", "ready", lambda: _look(services))
    assert look is not None  # the only one of its name
    readiness = await asyncio.shield(look)
    response.status_code = 200 if readiness.ready else 503
    return readiness


async def _look(services: Services) -> Readiness:
    checks: dict[str, Check] = {}

    async def check(name: str, needed: bool, look: Callable[[Services], Awaitable[str]]) -> None:
        try:
            with anyio.fail_after(_PATIENCE_SECONDS):
                checks[name] = Check(ok=True, needed=needed, detail=await look(services))
        except DiskShortageError as error:
            checks[name] = Check(ok=False, needed=needed, detail=str(error))
        except Exception as error:
            # The kind of error only: its text may hold addresses and passwords, and this needs no key.
            checks[name] = Check(ok=False, needed=needed, detail=type(error).__name__)

    async with anyio.create_task_group() as group:
        group.start_soon(check, "database", True, _database)
        group.start_soon(check, "store", True, _store)
        group.start_soon(check, "disk", True, _disk)
        group.start_soon(check, "inference", True, _inference)
        group.start_soon(check, "broker", False, _broker)
    is_ready = all(check.ok for check in checks.values() if check.needed)
    return Readiness(ready=is_ready, checks=dict(sorted(checks.items())))


class DiskShortageError(Exception):
    """There is less free space than is to be kept; the message says where, and is for everybody."""


class NoReadyServerError(Exception):
    """Not one inference server says that it is ready."""


async def _database(services: Services) -> str:
    def look() -> None:
        with services.aside.reading() as session:
            session.execute(select(Tenant.id).limit(1))  # fails too where the schema is missing

    await _in_thread(services, look)
    return services.registry.engine.dialect.name


async def _store(services: Services) -> str:
    store = services.registry.store
    await _in_thread(services, lambda: store.size("ready"))
    return store.url.partition(":")[0]


async def _disk(services: Services) -> str:
    found = await anyio.to_thread.run_sync(disks.shortage, services.settings, abandon_on_cancel=True)
    if found is not None:
        raise DiskShortageError(found)
    return "enough free space"


async def _inference(services: Services) -> str:
    number, known = await services.gateway.ready(), len(services.settings.inference_url_list)
    if number == 0:
        raise NoReadyServerError
    return f"{number} of {known} ready"


async def _broker(services: Services) -> str:
    await _in_thread(services, services.publisher.ping)
    return "connected"


async def _in_thread(services: Services, look: Callable[[], object]) -> None:
    """On none of the threads that requests may fill: those say nothing of what the service stands on."""
    await anyio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=services.threads_for_looks)
