"""The worker's hold on a job: claim, heartbeat, and giving it back."""

import secrets
from collections.abc import Iterable

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from registry.db import now, now_seconds
from registry.jobs.spec import Attempt, CheckpointRef, FileRef, HeartbeatSignal
from registry.jobs.state import append_event, close_attempt, lock_fenced, obey_signal, requeue
from registry.models import Checkpoint, File, Job, JobAttempt, Tenant


def claim(session: Session, job_id: str, worker_id: str, lease_seconds: float) -> Attempt | None:
    """Takes a job that waits, or whose worker has fallen silent; None when it is not to be had.

    One UPDATE decides, so of any number of workers that try at once, one wins. Taking over a silent worker's
    job spends an attempt; where none is left, or the tenant has asked for an end, the reaper has the word.
    """
    silent = and_(
        Job.status == "running",
        Job.lease_expires_at < now(),
        Job.attempts_spent + 1 < Job.max_attempts,
        Job.signal.is_(None),
    )
    statement = (
        update(Job)
        .where(Job.id == job_id, or_(Job.status == "queued", silent))
        .values(
            status="running",
            attempt=Job.attempt + 1,
            attempts_spent=Job.attempts_spent + case((Job.status == "running", 1), else_=0),
            lease_token=secrets.token_hex(16),
            lease_expires_at=now() + lease_seconds,
            worker_id=worker_id,
            started_at=func.coalesce(Job.started_at, now_seconds()),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    job = session.scalars(statement).one_or_none()
    if job is None:
        return None
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.job_id == job_id, JobAttempt.outcome.is_(None))
        .values(outcome="lost", finished_at=now_seconds())
    )
    attempt = _attempt(session, job)
    first_step = attempt.checkpoint.step if attempt.checkpoint else 0
    session.add(
        JobAttempt(
            job_id=job.id,
            number=attempt.number,
            token=attempt.token,
            worker_id=worker_id,
            first_step=first_step,
        )
    )
    if attempt.number == 1:
        append_event(session, job, "Fine-tuning job started")
    else:
        append_event(session, job, f"Fine-tuning job resumed from step {first_step} (attempt {attempt.number})")
    return attempt


def heartbeat(session: Session, attempts: Iterable[Attempt], lease_seconds: float) -> dict[str, HeartbeatSignal]:
    """Renews the leases and says, by job id, what is wanted of each attempt. "lost" means stop at once."""
    held = {attempt.job_id: attempt.token for attempt in attempts}
    renewed = session.execute(
        update(Job)
        .where(Job.id.in_(held), Job.lease_token.in_(held.values()), Job.status == "running")
        .values(lease_expires_at=now() + lease_seconds)
        .returning(Job.id, Job.signal)
        .execution_options(synchronize_session=False)
    )
    signals: dict[str, HeartbeatSignal] = dict.fromkeys(held, "lost")
    for job_id, signal in renewed:
        signals[job_id] = signal or "continue"
    return signals


def release(session: Session, attempt: Attempt, reason: str) -> None:
    """Gives a job back unfinished, because its worker stops; spends no attempt. Raises `LeaseLost`."""
    job = lock_fenced(session, attempt)
    outcome = obey_signal(session, job)
    if outcome is None:
        requeue(session, job)
        append_event(session, job, f"Job returned to the queue: {reason}")
    close_attempt(session, job, outcome or "released")


def _attempt(session: Session, job: Job) -> Attempt:
    assert job.lease_token is not None  # claim has just set it
    newest = session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc()).limit(1)
    ).one_or_none()
    return Attempt(
        job_id=job.id,
        tenant_id=job.tenant_id,
        tenant_name=session.get_one(Tenant, job.tenant_id).name,
        number=job.attempt,
        token=job.lease_token,
        base=job.base,
        suffix=job.suffix,
        seed=job.seed,
        hyperparameters=job.hyperparameters,
        osora=job.osora,
        training_file=_file(session, job.training_file_id),
        validation_file=None if job.validation_file_id is None else _file(session, job.validation_file_id),
        checkpoint=None if newest is None else CheckpointRef(newest.step, newest.object_key, newest.sha256),
        trained_tokens=job.trained_tokens or 0,
    )


def _file(session: Session, file_id: str) -> FileRef:
    file = session.get_one(File, file_id)
    assert file.rows is not None  # a training file's rows were counted at the upload
    return FileRef(file.id, file.object_key, file.sha256, file.rows)
