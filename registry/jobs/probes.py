"""Probes: the first steps of a job that is not there yet, to see how its loss falls.

A probe is a row among the jobs that no tenant sees: it waits for its turn and trains as the job would, tells nobody,
and publishes nothing. Whoever asked for it looks at it and ends it. Its row stays until it is overdue, so that it
counts as its tenant's turn; then maintenance deletes it in whatever state it is, and a worker that still trains it has
lost it.
"""

from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import and_, delete, exists, select
from sqlalchemy.orm import Session

from registry import bases, outbox
from registry.db import now, take_turns
from registry.errors import Conflict
from registry.jobs import metering
from registry.jobs.requests import accepted
from registry.jobs.state import append_event, close_attempt, end, lock_fenced
from registry.jobs.types import Attempt, JobError, JobRequest, Plan
from registry.limits import budgets, overrides
from registry.models import TERMINAL, Job, JobAttempt, JobEvent, JobStatus, OutboxMessage
from registry.settings import Settings
from registry.tenants import Principal
from registry.usage.tables import MeteredJob

MOST_STEPS = 50
SECONDS = 120.0
"""The longest that anybody waits for one."""
_SPARE_SECONDS = 30.0
_IS_OVERDUE = and_(Job.probe_steps.is_not(None), Job.probe_until < now())


@dataclass(frozen=True)
class ProbeState:
    """How far a probe is. `told` is what its worker has measured so far, None before its first step."""

    status: JobStatus
    plan: Plan | None
    told: dict[str, Any] | None
    error: JobError | None

    @property
    def is_over(self) -> bool:
        """Whether it goes no further."""
        return self.status in TERMINAL


def start(
    session: Session, principal: Principal, request: JobRequest, settings: Settings, offers: bases.Offers, steps: int
) -> str:
    """Queues a probe and returns its id; its wake-up is in the outbox when the transaction commits.

    Raises Conflict while another of the tenant's goes on, and what `registry.jobs.submit` does. Its budget counts, but
    not how many jobs wait.
    """
    take_turns(session, f"probe {principal.tenant_id}")
    mine = exists().where(
        Job.tenant_id == principal.tenant_id, Job.probe_steps.is_not(None), Job.status.not_in(TERMINAL)
    )
    if session.scalar(select(mine)):
        raise Conflict(
            "a probe of yours goes on already",
            code="probe_running",
            next_action="try again when it is over, in two minutes at most, or leave out `probe`",
        )
    budgets.check_training(session, overrides.of_tenant(session, principal.tenant_id))
    job = accepted(session, principal, request, settings, offers)
    job.probe_steps = steps
    job.probe_until = cast(float, now() + SECONDS + _SPARE_SECONDS)
    job.max_attempts = 1
    outbox.enqueue(session, job)
    return job.id


def look(session: Session, probe_id: str) -> ProbeState | None:
    """How far a probe is; None where it is gone."""
    job = session.get(Job, probe_id)
    if job is None:
        return None
    latest = select(JobEvent.data).where(JobEvent.job_id == probe_id, JobEvent.type == "metrics")
    told = session.scalars(latest.order_by(JobEvent.id.desc()).limit(1)).one_or_none()
    return ProbeState(job.status, cast("Plan | None", job.plan), told, cast("JobError | None", job.error))


def stop(session: Session, probe_id: str) -> None:
    """Ends a probe that nobody waits for any more: at once, or, if it runs, when its worker hears of it."""
    job = session.scalars(select(Job).where(Job.id == probe_id).with_for_update()).one_or_none()
    if job is None or job.is_terminal:
        return
    if job.status == "running":
        job.signal = "cancel"
    else:
        end(session, job, "cancelled", "Probe cancelled")


def record(
    session: Session,
    attempt: Attempt,
    told: dict[str, Any],
    *,
    step: int,
    trained_tokens: int,
    compute_seconds: float,
) -> None:
    """What has been measured, and what it has cost so far. Raises `LeaseLostError`."""
    job = lock_fenced(session, attempt)
    metering.meter(session, job, attempt, step=step, trained_tokens=trained_tokens, compute_seconds=compute_seconds)
    append_event(session, job, "Probe", type="metrics", data=told)


def complete(session: Session, attempt: Attempt) -> None:
    """Ends a probe whose steps are done. Raises `LeaseLostError`."""
    job = lock_fenced(session, attempt)
    end(session, job, "succeeded", "Probe completed")
    close_attempt(session, job, "succeeded")


def any_overdue(session: Session) -> bool:
    """Whether there is something to `clear`; it only reads."""
    return session.scalars(select(exists().where(_IS_OVERDUE))).one()


def clear(session: Session, limit: int = 100) -> int:
    """Deletes probes that are overdue, with all that belongs to them, and returns how many."""
    overdue = select(Job.id).where(_IS_OVERDUE).limit(limit).with_for_update(skip_locked=True)
    ids = session.scalars(overdue).all()
    for table in (OutboxMessage, JobEvent, JobAttempt, MeteredJob):
        session.execute(delete(table).where(table.job_id.in_(ids)))
    session.execute(delete(Job).where(Job.id.in_(ids)))
    return len(ids)
