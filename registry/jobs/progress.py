"""What a running attempt reports. Every write is fenced by its token and raises `LeaseLostError`."""

from collections.abc import Iterable
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.db import now_seconds
from registry.holds import unheld
from registry.ids import checkpoint_id, checkpoint_name
from registry.jobs import metering
from registry.jobs.state import append_event, lock_fenced
from registry.jobs.types import Attempt, NewAdapter, Plan, Remark
from registry.models import Checkpoint, EventLevel, EventType

_RESUMABLE = 2


def record_plan(session: Session, attempt: Attempt, plan: Plan, remarks: Iterable[Remark]) -> None:
    """Settles what the job trains, and says so in its history."""
    job = lock_fenced(session, attempt, plan=plan)
    for remark in remarks:
        append_event(session, job, remark.message, level=remark.level, data=remark.data)


def record_progress(
    session: Session,
    attempt: Attempt,
    *,
    step: int,
    total_steps: int,
    trained_tokens: int,
    metrics: dict[str, Any],
    compute_seconds: float,
    remaining_seconds: float | None,
) -> None:
    """Moves the job's counters, charges what is new, and adds a "metrics" event with the step and `metrics`.

    `compute_seconds` is what the attempt has cost so far. The time left is given as a length, because only the
    database's clock says when that will be.
    """
    job = lock_fenced(session, attempt)
    metering.meter(session, job, attempt, step=step, trained_tokens=trained_tokens, compute_seconds=compute_seconds)
    job.step, job.total_steps, job.trained_tokens = step, total_steps, trained_tokens
    if remaining_seconds is not None:
        job.estimated_finish = cast(int, now_seconds() + round(remaining_seconds))
    losses = (("train_loss", "training loss"), ("valid_loss", "validation loss"))
    message = f"Step {step}/{total_steps}" + "".join(
        f", {label} {metrics[name]:.4f}" for name, label in losses if metrics.get(name) is not None
    )
    data = {"step": step, "total_steps": total_steps, **metrics}
    append_event(session, job, message, type="metrics", data=data)


def add_event(
    session: Session,
    attempt: Attempt,
    message: str,
    *,
    level: EventLevel = "info",
    type: EventType = "message",
    data: dict[str, Any] | None = None,
) -> None:
    """Adds a line to the job's history."""
    append_event(session, lock_fenced(session, attempt), message, level=level, type=type, data=data)


def record_checkpoint(
    session: Session,
    attempt: Attempt,
    *,
    step: int,
    object_key: str,
    sha256: str,
    bytes: int,
    adapter: NewAdapter,
    ends_epoch: bool,
    metrics: dict[str, Any],
) -> list[str]:
    """Makes an uploaded checkpoint the one to resume from, and its adapter one to call; repeating it changes nothing.

    A job keeps the newest two, and of every epoch the last, so that the one with the lowest validation loss is always
    among them, and one that another job is to begin with or that an alias names. What is older than the two newest
    keeps its adapter only, not the state to resume from. Returns the object keys that are no longer named, for the
    caller to delete once this has committed; `registry.retention.delete_orphans` finds what it then misses.
    """
    job = lock_fenced(session, attempt)
    of_job = select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc())
    rows = session.scalars(of_job.with_for_update()).all()
    if any(row.object_key == object_key for row in rows):
        return []
    # One of the same step, or a later one, is there only when it could not be read: this attempt began before it.
    void = [row for row in rows if row.step >= step]
    superseded = [row for row in rows if row.step < step][_RESUMABLE - 1 :]
    unnamed = [row.object_key for row in (*void, *superseded)]
    for row in superseded:
        row.object_key = None
    free = unheld(session, [row.id for row in superseded])
    for row in (*void, *(row for row in superseded if not row.ends_epoch and row.id in free)):
        unnamed.append(row.adapter_key)
        session.delete(row)
    session.flush()
    checkpoint = Checkpoint(
        id=checkpoint_id(job.id, step),
        job_id=job.id,
        attempt=attempt.number,
        step=step,
        ends_epoch=ends_epoch,
        object_key=object_key,
        sha256=sha256,
        bytes=bytes,
        adapter_key=adapter.object_key,
        adapter_sha256=adapter.sha256,
        adapter_bytes=adapter.bytes,
        base_fingerprint=adapter.base_fingerprint,
        basis_fingerprint=adapter.basis_fingerprint,
        rank=adapter.rank,
        mix=adapter.mix,
        metrics=metrics,
    )
    session.add(checkpoint)
    name = checkpoint_name(job.base, attempt.tenant_name, job.suffix, job.id, step)
    append_event(session, job, f"Checkpoint created at step {step}", data={"step": step, "model": name})
    return [key for key in unnamed if key is not None]
