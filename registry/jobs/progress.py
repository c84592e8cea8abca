"""What a running attempt reports. Every write is fenced by its token and raises `LeaseLost`."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.ids import new_id
from registry.jobs.spec import Attempt
from registry.jobs.state import append_event, lock_fenced
from registry.models import Checkpoint, EventLevel, EventType


def record_progress(
    session: Session,
    attempt: Attempt,
    *,
    step: int,
    total_steps: int,
    trained_tokens: int,
    metrics: dict[str, Any],
    estimated_finish: float | None,
) -> None:
    """Moves the job's counters and adds a "metrics" event with the step and `metrics` as its data."""
    job = lock_fenced(
        session,
        attempt,
        step=step,
        total_steps=total_steps,
        trained_tokens=trained_tokens,
        estimated_finish=None if estimated_finish is None else round(estimated_finish),
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
) -> str:
    """Makes an uploaded checkpoint the one to resume from; returns its id. Repeating it changes nothing."""
    job = lock_fenced(session, attempt)
    known = session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step == step)
    ).one_or_none()
    if known is not None:
        return known.id
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
    return checkpoint.id
