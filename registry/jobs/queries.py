"""Reading jobs and what belongs to them; every query starts from the tenant."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, Text, and_, cast, func, select
from sqlalchemy.orm import Session

from registry.errors import InvalidRequest, NotFound
from registry.jobs import turns
from registry.models import Checkpoint, Job, JobAttempt, JobEvent, JobStatus
from registry.paging import Order, Page, fetch_page
from registry.tenants import Principal


def get(session: Session, principal: Principal, job_id: str, *, param: str = "job_id") -> Job:
    """A job of the tenant's. Raises `NotFound`, naming the request field `param`."""
    job = session.scalars(_of(principal).where(Job.id == job_id)).one_or_none()
    if job is None:
        raise job_not_found(job_id, param)
    return job


def list_jobs(
    session: Session,
    principal: Principal,
    *,
    status: JobStatus | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page[Job]:
    """The tenant's jobs of a status and with all of `metadata`; those without any, if it is empty.

    Raises `NotFound` for a bad `after`.
    """
    statement = _of(principal)
    if status is not None:
        statement = statement.where(Job.status == status)
    if metadata is not None and not metadata:
        statement = statement.where(cast(Job.metadata_, Text) == "{}")
    for key, value in (metadata or {}).items():
        statement = statement.where(Job.metadata_[key].as_string() == value)
    start = None if after is None else get(session, principal, after, param="after")
    position = None if start is None else (start.created_at, start.id)
    return fetch_page(session, statement, (Job.created_at, Job.id), after=position, limit=limit, order=order)


def events(
    session: Session,
    principal: Principal,
    job_id: str,
    after_id: int | None = None,
    limit: int = 20,
    order: Order = "asc",
) -> Page[JobEvent]:
    """A page of the job's events; in the order "asc" those newer than `after_id`, in "desc" those older."""
    job = get(session, principal, job_id)
    of_job = select(JobEvent).where(JobEvent.job_id == job.id)
    position = None if after_id is None else (after_id,)
    return fetch_page(session, of_job, (JobEvent.id,), after=position, limit=limit, order=order)


def checkpoints(
    session: Session,
    principal: Principal,
    job_id: str,
    *,
    after: str | None = None,
    limit: int = 10,
    order: Order = "desc",
) -> Page[Checkpoint]:
    """A page of the job's checkpoints by step, newest first unless asked otherwise."""
    job = get(session, principal, job_id)
    of_job = select(Checkpoint).where(Checkpoint.job_id == job.id)
    position = None
    if after is not None:
        start = session.scalars(of_job.where(Checkpoint.id == after)).one_or_none()
        if start is None:
            raise InvalidRequest(
                f"{after!r} is not a checkpoint of {job_id}",
                param="after",
                next_action="list without `after` for the ids",
            )
        position = (start.step,)
    return fetch_page(session, of_job, (Checkpoint.step,), after=position, limit=limit, order=order)


def attempts(session: Session, principal: Principal, job_id: str) -> Sequence[JobAttempt]:
    """Every claim of the job so far, in order."""
    return attempts_of(session, [get(session, principal, job_id)])[job_id]


def attempts_of(session: Session, jobs: Sequence[Job]) -> Mapping[str, Sequence[JobAttempt]]:
    """Every claim of each of the jobs so far, in order, by job id. One query, however many jobs."""
    found: dict[str, list[JobAttempt]] = {job.id: [] for job in jobs}
    rows = select(JobAttempt).where(JobAttempt.job_id.in_(found)).order_by(JobAttempt.job_id, JobAttempt.number)
    for attempt in session.scalars(rows):
        found[attempt.job_id].append(attempt)
    return found


def newest_metrics_of(session: Session, jobs: Sequence[Job]) -> Mapping[str, Mapping[str, Any]]:
    """What each of the jobs measured at its newest checkpoint, by job id. One query, however many jobs."""
    ids = [job.id for job in jobs]
    newest = select(Checkpoint.job_id, func.max(Checkpoint.step).label("step"))
    last = newest.where(Checkpoint.job_id.in_(ids)).group_by(Checkpoint.job_id).subquery()
    is_last = and_(Checkpoint.job_id == last.c.job_id, Checkpoint.step == last.c.step)
    return {
        job_id: metrics
        for job_id, metrics in session.execute(select(Checkpoint.job_id, Checkpoint.metrics).join(last, is_last))
    }


def queue_position(session: Session, job: Job) -> int | None:
    """How many jobs of the same base, whoever's, will be claimed before it; None unless the job is queued."""
    return queue_positions(session, [job]).get(job.id)


def queue_positions(session: Session, jobs: Sequence[Job]) -> Mapping[str, int]:
    """The `queue_position` of those of the jobs that are queued, by job id. One query, however many jobs."""
    waiting = {job.id: job.base for job in jobs if job.status == "queued"}
    if not waiting:
        return {}
    found = turns.positions(session, waiting.values())
    return {job_id: found[job_id] for job_id in waiting if job_id in found}


def job_not_found(job_id: str, param: str = "job_id") -> NotFound:
    """The error for a job that is not there, or not this tenant's."""
    return NotFound(f"no job {job_id!r}", param=param, code="job_not_found", next_action="list the jobs for their ids")


def _of(principal: Principal) -> Select[Job]:
    return select(Job).where(Job.tenant_id == principal.tenant_id, Job.probe_steps.is_(None))
