"""The transitions that several parts of the state machine share. All of them need the job's row locked.

The lock also orders events: PostgreSQL hands out an event's id before its transaction commits, so two open
transactions could commit ids in the wrong order and a watcher that asks for "after 7" would miss number 6.
With the row locked by whoever appends, the events of one job commit in the order of their ids.
"""

from typing import Any, Literal, cast

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from registry import outbox, webhooks
from registry.db import now_seconds
from registry.jobs.types import Attempt, JobError, LeaseLostError
from registry.limits import quotas
from registry.models import AttemptOutcome, EventLevel, EventType, Job, JobAttempt, JobEvent

_Ended = Literal["succeeded", "failed", "cancelled"]


def lock_fenced(session: Session, attempt: Attempt, **values: Any) -> Job:
    """Locks the attempt's job, setting `values`: the fence of every write. Raises `LeaseLostError` to a zombie."""
    statement = (
        update(Job)
        .where(Job.id == attempt.job_id, Job.lease_token == attempt.token, Job.status == "running")
        # An UPDATE needs something to set; the token is the one it already has.
        .values({"lease_token": attempt.token, **values})
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    job = session.scalars(statement).one_or_none()
    if job is None:
        raise LeaseLostError(f"attempt {attempt.number} of {attempt.job_id} has lost its lease")
    return job


def append_event(
    session: Session,
    job: Job,
    message: str,
    *,
    level: EventLevel = "info",
    type: EventType = "message",
    data: dict[str, Any] | None = None,
) -> None:
    """Adds a line to the job's history."""
    session.add(JobEvent(job_id=job.id, message=message, level=level, type=type, data=data))
    session.flush()


def requeue(session: Session, job: Job, *, interrupted: bool = False, delay_seconds: float = 0) -> None:
    """Puts the job (back) in the queue and writes its wake-up; it is not claimed before the delay is over.

    `interrupted`: whether it had its turn already, and lost it through no doing of its tenant.
    """
    job.status = "queued"
    job.interrupted = interrupted
    job.signal = None
    _drop_lease(session, job)
    outbox.enqueue(session, job, delay_seconds=delay_seconds)


def pause(session: Session, job: Job) -> None:
    """Takes the job out of the running until it is resumed."""
    job.status = "paused"
    job.signal = None
    _drop_lease(session, job)
    append_event(session, job, "Job paused")
    webhooks.record(session, job.tenant_id, "fine_tuning.job.paused", {"id": job.id})


def end(session: Session, job: Job, status: _Ended, message: str, *, error: JobError | None = None) -> None:
    """Ends the job for good."""
    job.status = status
    job.signal = None
    job.finished_at = cast(int, now_seconds())
    job.error = cast("dict[str, Any] | None", error)
    _drop_lease(session, job)
    append_event(session, job, message, level="error" if error else "info")
    if job.probe_steps is not None:
        return
    type = cast(webhooks.EventType, f"fine_tuning.job.{status}")
    webhooks.record(session, job.tenant_id, type, {"id": job.id})


def obey_signal(session: Session, job: Job) -> AttemptOutcome | None:
    """Ends or pauses a job whose attempt is over, if its tenant asked for that; None if not."""
    match job.signal:
        case "cancel":
            end(session, job, "cancelled", "Job cancelled")
            return "cancelled"
        case "pause":
            pause(session, job)
            return "paused"
        case None:
            return None


def close_attempt(
    session: Session,
    job: Job,
    outcome: AttemptOutcome,
    *,
    reason: str | None = None,
    error: JobError | None = None,
) -> None:
    """Writes down how the job's latest attempt ended, and why; an error is a reason."""
    row = session.scalars(select(JobAttempt).where(JobAttempt.job_id == job.id, JobAttempt.number == job.attempt)).one()
    row.outcome = outcome
    row.finished_at = cast(int, now_seconds())
    row.reason = error["message"] if error else reason
    row.error = cast("dict[str, Any] | None", error)
    session.flush()


def _drop_lease(session: Session, job: Job) -> None:
    was_running = job.lease_token is not None
    job.lease_token = None
    job.lease_expires_at = None
    job.worker_id = None
    job.estimated_finish = None
    if was_running:
        session.flush()
        quotas.wake_held_back(session, job)
