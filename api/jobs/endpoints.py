"""Fine-tuning jobs."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.bases.known import OffersDep
from api.deps import ReaderDep, ReadSessionDep, ServicesDep, SessionDep, TrainerDep
from api.idempotency import OnceFormDep, begun
from api.jobs.dry_run import dry_run
from api.jobs.fitting import require_fitting_rows
from api.jobs.queries import CheckpointsQuery, CreateQuery, JobId, JobsQuery
from api.jobs.requests import CreateJob
from api.jobs.schemas import CheckpointOut, DryRunOut, JobOut, ListedJobOut
from api.json_body import JsonRoute
from api.schemas import ListPage, errors
from osora_common.disconnect import CLIENT_GONE, unless_gone
from registry import jobs

router = APIRouter(tags=["jobs"], route_class=JsonRoute)


@router.post(
    "",
    summary="Start a fine-tuning job, or see what it would be",
    response_model=JobOut | DryRunOut,
    responses=errors(400, 401, 403, 404, 409),
)
async def create_job(
    request: Request,
    body: CreateJob,
    asked: Annotated[CreateQuery, Query()],
    principal: TrainerDep,
    services: ServicesDep,
    offers: OffersDep,
    background: BackgroundTasks,
    once: OnceFormDep,
) -> JobOut | DryRunOut | Response:
    """Queues a job on uploaded files. It is accepted even while the broker is down: workers catch up.

    With `dry_run=true` it makes none, and answers with what it would be.
    """
    wanted = body.to_job_request(services.settings)
    if asked.dry_run:
        await require_fitting_rows(services, principal, wanted)
        answer = await unless_gone(request, lambda: dry_run(services, principal, wanted, offers, asked.probe))
        return Response(status_code=CLIENT_GONE) if answer is None else answer
    await begun(request, once)
    # Whoever sends the request again gets the job that it made, whatever is known of its rows by now. And it is asked
    # before there is a transaction, which must not wait for it.
    await require_fitting_rows(services, principal, wanted)

    def submit() -> JobOut:
        with services.registry.transaction() as session:
            job = jobs.submit(session, principal, wanted, services.settings, offers)
            return once.keep(session, JobOut.of(principal, jobs.view(session, job, services.settings)))

    background.add_task(services.publisher.relay, services.registry)  # runs after the answer
    return await run_in_threadpool(submit)


@router.get("", summary="List jobs", responses=errors(400, 401, 403, 404))
def list_jobs(
    session: ReadSessionDep, principal: ReaderDep, query: Annotated[JobsQuery, Query()]
) -> ListPage[ListedJobOut]:
    """The tenant's jobs, newest first unless asked otherwise."""
    page = jobs.list(session, principal, **query.model_dump())
    return ListPage[ListedJobOut].of(
        [ListedJobOut.of(principal, view) for view in jobs.views(session, page.data)], page.has_more
    )


@router.get("/{job_id}", summary="Get a job", responses=errors(401, 403, 404))
def get_job(job_id: JobId, session: ReadSessionDep, principal: ReaderDep, services: ServicesDep) -> JobOut:
    """The job as it is now: every attempt at it, what it waits for, and when it is likely to start and end."""
    job = jobs.get(session, principal, job_id)
    return JobOut.of(principal, jobs.view(session, job, services.settings))


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=errors(401, 403, 404, 409))
def cancel_job(job_id: JobId, session: SessionDep, principal: TrainerDep, services: ServicesDep) -> JobOut:
    """Ends the job: at once while it waits, within seconds while it runs. Doing it twice is fine."""
    job = jobs.cancel(session, principal, job_id)
    return JobOut.of(principal, jobs.view(session, job, services.settings))


@router.post("/{job_id}/pause", summary="Pause a job", responses=errors(401, 403, 404, 409))
def pause_job(job_id: JobId, session: SessionDep, principal: TrainerDep, services: ServicesDep) -> JobOut:
    """Sets the job aside, after a checkpoint if it runs. Doing it twice is fine."""
    job = jobs.pause(session, principal, job_id)
    return JobOut.of(principal, jobs.view(session, job, services.settings))


@router.post("/{job_id}/resume", summary="Resume a paused job", responses=errors(401, 403, 404, 409))
def resume_job(
    job_id: JobId,
    session: SessionDep,
    principal: TrainerDep,
    services: ServicesDep,
    background: BackgroundTasks,
) -> JobOut:
    """Queues the job again; it goes on from its newest checkpoint. Doing it twice is fine."""
    job = jobs.resume(session, principal, job_id)
    background.add_task(services.publisher.relay, services.registry)
    return JobOut.of(principal, jobs.view(session, job, services.settings))


@router.get("/{job_id}/checkpoints", summary="List a job's checkpoints", responses=errors(400, 401, 403, 404))
def list_checkpoints(
    job_id: JobId, session: ReadSessionDep, principal: ReaderDep, query: Annotated[CheckpointsQuery, Query()]
) -> ListPage[CheckpointOut]:
    """The points that the job can be called at, newest first unless asked otherwise.

    Kept are the newest two and the last of every epoch, the one with the lowest validation loss among them, until
    `OSORA_CHECKPOINT_RETENTION_DAYS` after the job's end.
    """
    page = jobs.checkpoints(session, principal, job_id, **query.model_dump())
    job = jobs.get(session, principal, job_id)
    return ListPage[CheckpointOut].of([CheckpointOut.of(principal, job, row) for row in page.data], page.has_more)
