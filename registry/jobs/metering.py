"""What jobs cost: metered in the transaction that reports their progress, under the fence of their attempt."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from registry.jobs.types import Attempt
from registry.models import Job, JobAttempt
from registry.usage import days
from registry.usage.tables import MeteredJob


def open_account(session: Session, job: Job, key_id: str) -> None:
    """Notes the key that a new job is charged to."""
    session.add(MeteredJob(job_id=job.id, tenant_id=job.tenant_id, key_id=key_id, trained_tokens=0, steps=0))


def meter(
    session: Session, job: Job, attempt: Attempt, *, step: int, trained_tokens: int, compute_seconds: float
) -> None:
    """Charges what is new in an attempt's report, and writes down how far it is. The caller has fenced the attempt.

    Steps and tokens are the job's: those that an attempt repeats after a crash were charged before. Seconds are the
    attempt's: what was computed twice has cost twice.
    """
    mine = JobAttempt.token == attempt.token
    before = session.scalars(select(JobAttempt.compute_seconds).where(mine)).one()
    session.execute(
        update(JobAttempt)
        .where(mine)
        .values(last_step=step, compute_seconds=compute_seconds)
        .execution_options(synchronize_session=False)
    )
    metered = _metered(session, job)
    steps, tokens = max(0, step - metered.steps), max(0, trained_tokens - metered.trained_tokens)
    metered.steps += steps
    metered.trained_tokens += tokens
    seconds = max(0.0, compute_seconds - before)
    if not (steps or tokens or seconds):
        return
    charged = {
        "tenant_id": job.tenant_id,
        "day": days.day_of(days.clock(session)),
        "key_id": metered.key_id,
        "base": job.base,
        "adapter_id": "",
        "kind": "training" if job.probe_steps is None else "probe",
        "trained_tokens": tokens,
        "steps": steps,
        "compute_seconds": seconds,
    }
    days.add(session, [charged])


def _metered(session: Session, job: Job) -> MeteredJob:
    found = session.get(MeteredJob, job.id)
    if found is None:
        # A job from before keys were noted: what it has done until now has been seen by nobody.
        found = MeteredJob(
            job_id=job.id, tenant_id=job.tenant_id, key_id="", trained_tokens=job.trained_tokens or 0, steps=job.step
        )
        session.add(found)
    return found
