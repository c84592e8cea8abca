"""Puts right what lost workers and lost messages leave behind. Any number of workers may run it at once."""

from sqlalchemy import and_, exists, select
from sqlalchemy.orm import Session

from registry import outbox
from registry.db import now
from registry.jobs.retry import retry_or_fail
from registry.jobs.state import close_attempt, obey_signal
from registry.jobs.types import JobError
from registry.models import Job, OutboxMessage, Tenant

_IS_LOST = and_(Job.status == "running", Job.lease_expires_at < now())


def any_lost(session: Session) -> bool:
    """Whether a running job's lease has run out, so that `reap` has something to do; it only reads."""
    return session.scalars(select(exists().where(_IS_LOST))).one()


def reap(session: Session, limit: int = 100) -> int:
    """Takes jobs from workers whose leases have run out, and returns how many.

    A job goes back to the head of the queue, or fails as `worker_lost` once its attempts are spent; one that its tenant
    wanted cancelled or paused becomes that.
    """
    expired = (
        select(Job)
        .where(_IS_LOST)
        .order_by(Job.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    jobs = session.scalars(expired).all()
    for job in jobs:
        error = _worker_lost(job)
        if obey_signal(session, job) is None:
            error = retry_or_fail(session, job, error, backoff=False)
        close_attempt(session, job, "lost", error=error)
    return len(jobs)


def reconcile(session: Session, base: str, older_than_seconds: float, limit: int = 100) -> int:
    """Writes a new wake-up for a base's jobs that have waited this long since their last one; returns how many.

    A broker that restarts may have forgotten its messages. A wake-up too many does no harm: whoever acts on it finds
    nothing to claim. But call this only while the base's queue is empty: a long queue would grow with every call.
    """
    pending = exists().where(OutboxMessage.job_id == Job.id)
    forgotten = (
        select(Job)
        .join(Tenant, Tenant.id == Job.tenant_id)
        .where(Job.status == "queued", Job.base == base, Job.announced_at < now() - older_than_seconds, ~pending)
        .where(Tenant.suspended_at.is_(None))
        .order_by(Job.announced_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Job)
    )
    jobs = session.scalars(forgotten).all()
    for job in jobs:
        outbox.enqueue(session, job)
    return len(jobs)


def _worker_lost(job: Job) -> JobError:
    return {
        "code": "worker_lost",
        "message": f"Attempt {job.attempt} was lost: worker {job.worker_id} stopped renewing its lease",
        "param": None,
        "fault": "platform",
        "next_action": "look at the worker's log; a job that keeps losing its workers may need more memory",
    }
