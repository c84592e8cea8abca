"""The worker's hold on a job: claim, heartbeat, and giving it back."""

import secrets
from collections.abc import Iterable
from typing import cast

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, case, func, literal, or_, select, update
from sqlalchemy.orm import Session

from registry.db import now, now_seconds
from registry.jobs import start
from registry.jobs.spec import Attempt, CheckpointRef, FileRef, HeartbeatSignal, Plan
from registry.jobs.state import append_event, close_attempt, lock_fenced, obey_signal, requeue
from registry.models import Checkpoint, File, Job, JobAttempt, Tenant


def wants_to_be_alone(session: Session, job_id: str) -> bool:
    """Whether the job has already cost workers their lives and has one attempt left.

    It may be what kills them. So it runs beside no other job: if it is, it ends alone, and if it merely stood next to
    one that is, it gets through.
    """
    return session.scalars(select(_on_last_chance(Job.attempts_spent)).where(Job.id == job_id)).one_or_none() or False


def claim(
    session: Session, job_id: str, worker_id: str, lease_seconds: float, *, alone: bool = False
) -> Attempt | None:
    """Takes a job that waits, or whose worker has fallen silent; None when it is not to be had.

    One UPDATE decides, so of any number of workers that try at once, one wins. Taking over a silent worker's
    job spends an attempt; where none is left, or the tenant has asked for an end, the reaper has the word.
    `alone`: whether the worker has no other job, and takes none meanwhile; see `wants_to_be_alone`.
    """
    silent = and_(
        Job.status == "running",
        Job.lease_expires_at < now(),
        Job.attempts_spent + 1 < Job.max_attempts,
        Job.signal.is_(None),
    )
    spent = Job.attempts_spent + case((Job.status == "running", 1), else_=0)
    statement = (
        update(Job)
        .where(Job.id == job_id, or_(Job.status == "queued", silent), or_(literal(alone), ~_on_last_chance(spent)))
        .values(
            status="running",
            attempt=Job.attempt + 1,
            attempts_spent=spent,
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
        .values(outcome="lost", finished_at=now_seconds(), reason="its worker stopped renewing its lease")
    )
    attempt = _attempt(session, job)
    first_step = attempt.checkpoints[0].step if attempt.checkpoints else 0
    session.add(
        JobAttempt(
            job_id=job.id,
            number=attempt.number,
            token=attempt.token,
            worker_id=worker_id,
            first_step=first_step,
            last_step=first_step,
        )
    )
    if attempt.number == 1:
        append_event(session, job, "Fine-tuning job started")
    else:
        append_event(session, job, f"Fine-tuning job resumed from step {first_step} (attempt {attempt.number})")
    return attempt


def began_at(session: Session, attempt: Attempt, step: int, message: str) -> None:
    """Says that the attempt could not begin where its newest checkpoint is, but at `step`. Raises `LeaseLost`."""
    job = lock_fenced(session, attempt, step=step)
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.token == attempt.token)
        .values(first_step=step, last_step=step)
        .execution_options(synchronize_session=False)
    )
    append_event(session, job, message, level="warn")


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


def signals(session: Session, attempts: Iterable[Attempt]) -> dict[str, HeartbeatSignal]:
    """What is wanted of each attempt, by job id, as `heartbeat` says it; renews nothing and waits for no lock."""
    held = {attempt.job_id: attempt.token for attempt in attempts}
    rows = session.execute(
        select(Job.id, Job.signal).where(Job.lease_token.in_(held.values()), Job.status == "running")
    )
    wanted: dict[str, HeartbeatSignal] = dict.fromkeys(held, "lost")
    for job_id, signal in rows:
        wanted[job_id] = signal or "continue"
    return wanted


def release(session: Session, attempt: Attempt, reason: str) -> None:
    """Gives a job back unfinished; spends no attempt. Raises `LeaseLost`.

    It becomes what its tenant has asked for, cancelled or paused; without such a wish it is queued again.
    """
    job = lock_fenced(session, attempt)
    outcome = obey_signal(session, job)
    if outcome is None:
        requeue(session, job)
        append_event(session, job, f"Job returned to the queue: {reason}")
    close_attempt(session, job, outcome or "released", reason=reason)


def _on_last_chance(spent: SQLColumnExpression[int]) -> ColumnElement[bool]:
    return and_(spent > 0, spent + 1 >= Job.max_attempts)


def _attempt(session: Session, job: Job) -> Attempt:
    assert job.lease_token is not None  # claim has just set it
    checkpoints = session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc())
    )
    return Attempt(
        job_id=job.id,
        tenant_id=job.tenant_id,
        tenant_name=session.get_one(Tenant, job.tenant_id).name,
        number=job.attempt,
        token=job.lease_token,
        base=job.base,
        suffix=job.suffix,
        seed=job.seed,
        method=job.method,
        hyperparameters=job.hyperparameters,
        osora=job.osora,
        training_file=_file(session, job.training_file_id),
        validation_file=None if job.validation_file_id is None else _file(session, job.validation_file_id),
        checkpoints=tuple(
            CheckpointRef(c.step, c.object_key, c.sha256) for c in checkpoints if c.object_key is not None
        ),
        trained_tokens=job.trained_tokens or 0,
        from_adapter_id=job.from_adapter_id,
        start=start.find(session, job),
        plan=cast("Plan | None", job.plan),
    )


def _file(session: Session, file_id: str) -> FileRef:
    file = session.get_one(File, file_id)
    assert file.rows is not None  # a training file's rows were counted at the upload
    assert file.format is not None
    return FileRef(file.id, file.object_key, file.sha256, file.rows, file.format)
