"""A job's events: a page of them, or a stream that lasts as long as the job."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from api.deps import ReaderDep, ReadSessionDep, ServicesDep
from api.event_reader import read_page
from api.jobs.queries import EventsQuery, JobId, event_number
from api.jobs.schemas import EventOut
from api.routes import ThreadRoute
from api.schemas import ListPage, errors
from api.sse import EventStream
from registry import jobs

router = APIRouter(tags=["jobs"], route_class=ThreadRoute)

_STREAM_EXAMPLE = """: ping

event: message
data: {"id": "ftevent-41", "type": "message", "message": "Fine-tuning job started", …}
id: 41

event: metrics
data: {"id": "ftevent-42", …, "data": {"step": 10, "total_steps": 225, "train_loss": 1.83, …}}
id: 42

event: done
data: {"id": "ftjob-…", "object": "fine_tuning.job", "status": "succeeded", …}
"""


@router.get(
    "/{job_id}/events",
    summary="List or follow a job's events",
    response_model=ListPage[EventOut],
    responses={
        200: {"content": {"text/event-stream": {"example": _STREAM_EXAMPLE}}},
        **errors(400, 401, 403, 404),
    },
)
def list_events(
    job_id: JobId,
    session: ReadSessionDep,
    services: ServicesDep,
    principal: ReaderDep,
    query: Annotated[EventsQuery, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[str | None, Header(description="Where a stream takes up again.")] = None,
) -> ListPage[EventOut] | Response:
    """A page of events, newest first unless asked otherwise.

    With `Accept: text/event-stream` (or `stream=true`): all events from the oldest on, or after the last one
    seen, then new ones as they happen, and `done` with the job at its end.
    """
    if query.stream or "text/event-stream" in accept:
        services.events.require_room(principal)
        first = read_page(session, principal, job_id, event_number(last_event_id) or query.after_id or 0)
        return EventStream(services.events, services.revocations, principal, job_id, first)
    page = jobs.events(session, principal, job_id, query.after_id, query.limit, query.order)
    return ListPage[EventOut].of([EventOut.of(event) for event in page.data], page.has_more)
