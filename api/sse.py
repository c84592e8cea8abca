"""A job's events as they happen, as server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.jobs.schemas import EventOut, JobOut
from api.services import Services
from registry import jobs
from registry.tenants import Principal

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 15.0
_BATCH = 500


async def follow(services: Services, principal: Principal, job_id: str, after_id: int | None) -> AsyncIterator[bytes]:
    """The events after `after_id`, until the job has ended; then `done` with the job.

    Ends without `done` when the server stops: the client comes back with `Last-Event-ID`. No database
    connection is held between two looks, so that a thousand watchers do not use up the pool.
    """
    # Something at once, so that proxies and clients know that the stream has begun.
    yield KEEPALIVE_COMMENT
    said_something_at = time.monotonic()
    while not services.stopping.is_set():
        events, job, has_more = await run_in_threadpool(_look, services, principal, job_id, after_id)
        for number, event in events:
            yield format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(number))
            after_id, said_something_at = number, time.monotonic()
        if has_more:
            continue
        if job is not None:
            yield format_sse_event(data_str=job.model_dump_json(), event="done")
            return
        if time.monotonic() - said_something_at >= HEARTBEAT_SECONDS:
            yield KEEPALIVE_COMMENT
            said_something_at = time.monotonic()
        await _pause(services.stopping)


def _look(
    services: Services, principal: Principal, job_id: str, after_id: int | None
) -> tuple[list[tuple[int, EventOut]], JobOut | None, bool]:
    """New events, the job if it has ended, and whether there are more events to fetch at once."""
    with services.registry.reading() as session:
        # The job first: an ended one gets no more events, so those read after it are all there will be.
        job = jobs.get(session, principal, job_id)
        page = jobs.events(session, principal, job_id, after_id, limit=_BATCH, order="asc")
        events = [(event.id, EventOut.of(event)) for event in page.data]
        ended = JobOut.of(principal, jobs.view(session, job, services.settings)) if job.is_terminal else None
        return events, ended, page.has_more


async def _pause(stopping: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), POLL_SECONDS)
    except TimeoutError:
        return
