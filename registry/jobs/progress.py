"""What a running attempt reports. Every write is fenced by its token and raises `LeaseLost`."""

from typing import Any, cast

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from registry.db import now_seconds
from registry.ids import new_id
from registry.jobs.spec import Attempt
from registry.jobs.state import append_event, lock_fenced
from registry.models import Checkpoint, EventLevel, EventType, JobAttempt

_KEPT = 2


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
    """Moves the job's counters and adds a "metrics" event with the step and `metrics` as its data.

    `compute_seconds` is what the attempt has cost so far. The time left is given as a length, because only the
    database's clock says when that will be.
    """
    job = lock_fenced(session, attempt, step=step, total_steps=total_steps, trained_tokens=trained_tokens)
    if remaining_seconds is not None:
        job.estimated_finish = cast(int, now_seconds() + round(remaining_seconds))
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.token == attempt.token)
        .values(last_step=step, compute_seconds=compute_seconds)
        .execution_options(synchronize_session=False)
    )
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
    metrics: dict[str, Any],
) -> list[str]:
    """Makes an uploaded checkpoint the one to resume from; repeating it changes nothing.

    The job keeps its newest two. Returns the object keys of those that are no longer named, for the caller to delete
    once this has committed; the retention's sweep finds what it then misses.
    """
    job = lock_fenced(session, attempt)
    rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc())).all()
    if any(row.object_key == object_key for row in rows):
        return []
    # One of the same step, or a later one, is there only when it could not be read: this attempt began before it.
    dropped = [row for row in rows if row.step >= step] + [row for row in rows if row.step < step][_KEPT - 1 :]
    for row in dropped:
        session.delete(row)
    session.flush()
    checkpoint = Checkpoint(
        id=new_id("ftckpt_"),
        job_id=job.id,
        attempt=attempt.number,
        step=step,
        object_key=object_key,
        sha256=sha256,
        bytes=bytes,
        metrics=metrics,
    )
    session.add(checkpoint)
    append_event(session, job, f"Checkpoint created at step {step}")
    return [row.object_key for row in dropped]
