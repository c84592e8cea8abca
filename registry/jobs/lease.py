"""The worker's hold on a job: claim, heartbeat, and giving it back."""

import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

from sqlalchemy import Row, Select, func, literal, or_, select, update
from sqlalchemy.orm import Session

from registry.db import now, now_seconds, take_turns
from registry.jobs import begun_with, points, turns
from registry.jobs.state import append_event, close_attempt, lock_fenced, obey_signal, requeue
from registry.jobs.types import Attempt, CheckpointRef, FileRef, HeartbeatSignal, Plan
from registry.limits import quotas
from registry.models import Checkpoint, File, Job, JobAttempt, JobSignal, Tenant

# A retry waits for a while first.
_IS_DUE = Job.announced_at <= now()


def wants_to_be_alone(session: Session, base: str, passed_over: Collection[str] = ()) -> bool | None:
    """Whether the base's next job, but for those of the tenants `passed_over`, has to run alone in its worker (see
    `Job.on_last_chance`); None if none is due."""
    due = _claimable(session, base).where(Job.tenant_id.not_in(passed_over))
    first = due.with_only_columns(Job.on_last_chance, maintain_column_froms=True)
    return session.scalars(first.limit(1)).one_or_none()


def claim_next(
    session: Session,
    base: str,
    worker_id: str,
    lease_seconds: float,
    passed_over: Collection[str] = (),
    *,
    alone: bool = False,
) -> Attempt | None:
    """Takes the job of a base whose turn it is (see `turns`); None when there is none.

    `passed_over`: tenants whose jobs the worker has no room for.
    `alone`: whether the worker has no other job, and takes none meanwhile. Then it gets only a job that has to be
    alone, and otherwise only one that has not.
    """
    # Of two claims at once, the second would otherwise skip the first's job and take the next of the same tenant; or
    # both take the last that the tenant may run, on two bases.
    take_turns(session, "claim")
    wanted = _claimable(session, base).where(Job.on_last_chance.is_(alone), Job.tenant_id.not_in(passed_over))
    first = session.execute(wanted.limit(1).with_for_update(skip_locked=True, of=Job)).first()
    return None if first is None else claim(session, first.id, worker_id, lease_seconds, alone=alone)


def _claimable(session: Session, base: str) -> Select[Any]:
    """The base's jobs that may start now, in their order."""
    wanted = turns.in_order([base]).where(_IS_DUE)
    full, spent = quotas.held_back(session, base)
    if full:
        wanted = wanted.where(Job.tenant_id.not_in(full))
    if spent:
        wanted = wanted.where(or_(Job.interrupted, Job.tenant_id.not_in(spent)))
    return wanted


def claim(
    session: Session, job_id: str, worker_id: str, lease_seconds: float, *, alone: bool = False
) -> Attempt | None:
    """Takes a job that waits, whether it is its turn or not; None when it is not to be had.

    One UPDATE decides, so of any number of workers that try at once, one wins.
    `alone`: whether the worker has no other job, and takes none meanwhile; see `Job.on_last_chance`.
    """
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.status == "queued", or_(literal(alone), ~Job.on_last_chance))
        .values(
            status="running",
            attempt=Job.attempt + 1,
            lease_token=secrets.token_hex(16),
            lease_expires_at=now() + lease_seconds,
            worker_id=worker_id,
            interrupted=False,
            claimed_at=now(),
            started_at=func.coalesce(Job.started_at, now_seconds()),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    job = session.scalars(statement).one_or_none()
    if job is None:
        return None
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
    """Says that the attempt could not begin where its newest checkpoint is, but at `step`. Raises `LeaseLostError`."""
    job = lock_fenced(session, attempt, step=step)
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.token == attempt.token)
        .values(first_step=step, last_step=step)
        .execution_options(synchronize_session=False)
    )
    append_event(session, job, message, level="warn")


def heartbeat(session: Session, attempts: Iterable[Attempt], lease_seconds: float) -> dict[str, HeartbeatSignal]:
    """Renews the leases and says, by lease token, what is wanted of each attempt. "lost" means stop at once.

    Not by job id: a process that has lost a job without knowing may have claimed it once more.
    """
    attempts = list(attempts)
    held = {attempt.token: attempt.job_id for attempt in attempts}
    renewed = session.execute(
        update(Job)
        .where(Job.id.in_(held.values()), Job.lease_token.in_(held), Job.status == "running")
        .values(lease_expires_at=now() + lease_seconds)
        .returning(Job.lease_token, Job.signal)
        .execution_options(synchronize_session=False)
    )
    return _wanted(session, attempts, renewed)


def signals(session: Session, attempts: Iterable[Attempt]) -> dict[str, HeartbeatSignal]:
    """What is wanted of each attempt, by lease token, as `heartbeat` says it; renews nothing and waits for no lock."""
    attempts = list(attempts)
    tokens = [attempt.token for attempt in attempts]
    rows = session.execute(
        select(Job.lease_token, Job.signal).where(Job.lease_token.in_(tokens), Job.status == "running")
    )
    return _wanted(session, attempts, rows)


def _wanted(
    session: Session, attempts: Sequence[Attempt], found: Iterable[Row[str | None, JobSignal | None]]
) -> dict[str, HeartbeatSignal]:
    signals = {token: signal for token, signal in found}
    of_tenants = {attempt.tenant_id for attempt in attempts}
    suspended = set(
        session.scalars(select(Tenant.id).where(Tenant.id.in_(of_tenants), Tenant.suspended_at.is_not(None)))
    )

    def wanted(attempt: Attempt) -> HeartbeatSignal:
        if attempt.token not in signals:
            return "lost"
        return signals[attempt.token] or ("suspend" if attempt.tenant_id in suspended else "continue")

    return {attempt.token: wanted(attempt) for attempt in attempts}


def release(session: Session, attempt: Attempt, reason: str) -> None:
    """Gives a job back unfinished; spends no attempt. Raises `LeaseLostError`.

    It becomes what its tenant has asked for, cancelled or paused; without such a wish it is queued again.
    """
    job = lock_fenced(session, attempt)
    outcome = obey_signal(session, job)
    if outcome is None:
        requeue(session, job, interrupted=True)
        append_event(session, job, f"Job returned to the queue: {reason}")
    close_attempt(session, job, outcome or "released", reason=reason)


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
        seed=job.seed,
        method=job.method,
        hyperparameters=job.hyperparameters,
        osora=job.osora,
        points=points.of_job(job),
        training_file=_file(session, job.training_file_id),
        validation_file=None if job.validation_file_id is None else _file(session, job.validation_file_id),
        checkpoints=tuple(
            CheckpointRef(c.step, c.object_key, c.sha256) for c in checkpoints if c.object_key is not None
        ),
        trained_tokens=job.trained_tokens or 0,
        from_adapter_id=job.from_adapter_id,
        start=begun_with.find(session, job),
        plan=cast("Plan | None", job.plan),
        probe_steps=job.probe_steps,
    )


def _file(session: Session, file_id: str) -> FileRef:
    file = session.get_one(File, file_id)
    assert file.format is not None  # a training file's was found at the upload
    return FileRef(file.id, file.object_key, file.sha256, file.format)
