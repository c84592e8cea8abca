"""When a job will start and end, as far as that can be known, and what it waits for."""

import heapq
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from registry import workers
from registry.db import now
from registry.jobs import turns
from registry.jobs.queries import queue_position
from registry.limits import quotas
from registry.models import Job, JobAttempt, JobPriority, OutboxMessage
from registry.settings import Settings

HISTORY_JOBS = 20
# A wake-up goes out within a second of its job, and a relay that fails tries again every five.
_UNPUBLISHED_SECONDS = 10


@dataclass(frozen=True)
class Forecast:
    """What lies ahead of a job. Times are unix seconds; None is what cannot be known, or is over."""

    queue_position: int | None = None
    estimated_start: int | None = None
    estimated_finish: int | None = None
    waiting_for: str | None = None
    """A few words for an operator."""


def foresee(session: Session, job: Job, settings: Settings) -> Forecast:
    """The forecast of a job of any state, in a constant number of queries.

    The model: a worker is live if it was seen within a lease's time, and has slots for so many jobs of the base.
    A job holds its slot for as long as the base's last 20 succeeded jobs did in the mean, over all their attempts;
    the steps that it has behind it are taken off. A running job is expected to end when its worker says, or, if that
    has not said anything yet, as if it had just begun. Then the queue is played through in the order of `turns`, each
    job to the slot that is free first; a retry starts no sooner than its delay allows. So the sizes of the jobs ahead
    are not looked at, and what other bases do on the same device is only known by how long the last jobs took.
    """
    if job.status == "queued":
        position = queue_position(session, job)
        # None: claimed since the row was read.
        return Forecast() if position is None else _of_queued(session, job, position, settings)
    if job.status == "running":
        return _of_running(session, job)
    return Forecast(waiting_for="somebody to resume it" if job.status == "paused" else None)


def foresee_new(session: Session, tenant_id: str, base: str, priority: JobPriority, settings: Settings) -> Forecast:
    """The forecast of a job that the tenant would queue now. Whoever writes it does not have to work that out while
    all other writers wait."""
    job = Job(id="", base=base, step=0, announced_at=0.0, attempts_spent=0, max_attempts=settings.max_attempts)
    position = turns.position_of_new(session, tenant_id, base, priority)
    return _of_queued(session, job, position, settings)


def _of_running(session: Session, job: Job) -> Forecast:
    time, seconds = _clock_and_history(session, job.base)
    if job.lease_expires_at is not None and job.lease_expires_at < time:
        return Forecast(waiting_for=f"another worker: {job.worker_id} has stopped renewing its lease")
    return Forecast(estimated_finish=_whole(_end_of_running(job, time, seconds)))


def _of_queued(session: Session, job: Job, position: int, settings: Settings) -> Forecast:
    time, seconds = _clock_and_history(session, job.base)
    live = {worker.id: worker.slots for worker in workers.live(session, job.base, settings.lease_seconds)}
    running = session.scalars(select(Job).where(Job.status == "running", Job.base == job.base, Job.worker_id.in_(live)))
    free_at = [_end_of_running(other, time, seconds) for other in running]
    free = max(0, sum(live.values()) - len(free_at))
    free_at += [time] * free
    start = max(_turn(free_at, position, seconds), job.announced_at) if free_at else math.inf
    return Forecast(
        queue_position=position,
        estimated_start=_whole(start),
        estimated_finish=_whole(start + _rest(job, seconds)),
        waiting_for=_reason(session, job, time, position=position, slots=len(free_at), free=free),
    )


def _reason(session: Session, job: Job, time: float, *, position: int, slots: int, free: int) -> str:
    if (limit := quotas.reason_to_wait(session, job)) is not None:
        return limit
    if not slots:
        return f"a worker: no live one serves {job.base}"
    if job.announced_at > time:
        return f"a retry at {datetime.fromtimestamp(job.announced_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    unpublished = exists().where(OutboxMessage.job_id == job.id)
    if job.announced_at < time - _UNPUBLISHED_SECONDS and session.scalar(select(unpublished)):
        return "the broker, which does not take its wake-up"
    if position:
        return f"{position} job{'s' if position > 1 else ''} ahead"
    if not free:
        return f"a free slot: {slots} of {slots} taken"
    if job.on_last_chance:
        return f"a worker without other jobs, as it has cost {job.attempts_spent} attempts already"
    return "a worker to claim it"


def _clock_and_history(session: Session, base: str) -> tuple[float, float]:
    """The database's time, and how long a job of the base holds a slot: infinity if none has succeeded yet."""
    lately = (
        select(Job.id)
        .where(Job.status == "succeeded", Job.base == base, Job.probe_steps.is_(None))
        .order_by(Job.queued_at.desc())  # the order of an index, and nearly that of their ends
        .limit(HISTORY_JOBS)
    )
    took = func.sum(JobAttempt.finished_at - JobAttempt.started_at)
    jobs = func.count(JobAttempt.job_id.distinct())
    time, seconds, count = session.execute(
        select(now(), took, jobs).select_from(JobAttempt).where(JobAttempt.job_id.in_(lately))
    ).one()
    return time, math.inf if seconds is None else float(seconds) / count


def _end_of_running(job: Job, time: float, seconds: float) -> float:
    if job.probe_until is not None:
        return max(time, job.probe_until)
    return time + _rest(job, seconds) if job.estimated_finish is None else max(time, job.estimated_finish)


def _rest(job: Job, seconds: float) -> float:
    """What the steps to come take, if all of them take so many seconds; those may be infinitely many."""
    to_come = 1 - job.step / job.total_steps if job.total_steps else 1
    return seconds * to_come if to_come else 0


def _turn(free_at: list[float], ahead: int, seconds: float) -> float:
    """When a slot is free for the job that has `ahead` others before it, each of which holds one for `seconds`."""
    heap = sorted(free_at)
    for _ in range(ahead):
        heapq.heapreplace(heap, heap[0] + seconds)
    return heap[0]


def _whole(time: float) -> int | None:
    return round(time) if math.isfinite(time) else None
