"""Jobs, events and checkpoints as OpenAI shapes them; what is ours of a job is under `osora`."""

from typing import Any, Literal, Self

from pydantic import BaseModel

from api.dial import PointOut, SizedPointOut
from osora_common.presets import Point
from registry.ids import event_id
from registry.jobs import JobView
from registry.models import AttemptOutcome, Checkpoint, EventLevel, EventType, Job, JobAttempt, JobEvent
from registry.models import JobStatus as JobStatus
from registry.references import AdapterRef
from registry.tenants import Principal


class AttemptOut(BaseModel):
    """One worker's try at the job."""

    number: int
    worker_id: str
    first_step: int
    """Where it began: 0, or the step of a checkpoint."""
    last_step: int
    compute_seconds: float
    """Its share of the time that the training engine's steps took."""
    started_at: int
    finished_at: int | None
    outcome: AttemptOutcome | None
    reason: str | None
    """Why it ended before its job did, in words."""
    error: dict[str, Any] | None

    @classmethod
    def of(cls, attempt: JobAttempt) -> Self:
        """The attempt's row as a client sees it: without the token."""
        return cls(
            number=attempt.number,
            worker_id=attempt.worker_id,
            first_step=attempt.first_step,
            last_step=attempt.last_step,
            compute_seconds=round(attempt.compute_seconds, 3),
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            outcome=attempt.outcome,
            reason=attempt.reason,
            error=attempt.error,
        )


class RowsOut(BaseModel):
    """How many rows of its files a job trains on, and validates on; and how many that were too long it left out, and
    cut."""

    training: int
    validation: int
    dropped: int
    truncated: int


class JobDetails(BaseModel):
    """Osora's own part of a job."""

    step: int
    total_steps: int | None
    adapter_id: str | None
    started_at: int | None
    requested: Literal["cancel", "pause"] | None
    """What was asked of a running job and has not happened yet."""
    queue_position: int | None
    """How many jobs are ahead, while it is queued."""
    settings: dict[str, Any]
    """The `osora` object that it was created with."""
    points: list[PointOut] | None
    """Of the dial, settled when it was accepted: one, or of a sweep over presets one for each. Null for a job of before
    there were any."""
    resolved: dict[str, Any] | None
    """All that it trains with, once that is decided: what was left out or "auto" as values; of a sweep, the best."""
    rows: RowsOut | None
    """Once that is decided."""
    train_loss: float | None
    """At the newest checkpoint; this and the next."""
    valid_loss: float | None
    compute_seconds: float
    """What all attempts have cost."""
    attempts: list[AttemptOut]

    @classmethod
    def of(cls, view: JobView) -> Self:
        """The part of a job, and of what belongs to it, that OpenAI's API has no place for."""
        job, attempts = view.job, view.attempts
        return cls(
            step=job.step,
            total_steps=job.total_steps,
            adapter_id=job.adapter_id,
            started_at=job.started_at,
            requested=job.signal,
            queue_position=view.forecast.queue_position,
            settings=job.osora,
            points=None if job.points is None else [PointOut.of(Point.from_dict(point)) for point in job.points],
            resolved=_resolved(job),
            rows=RowsOut(**job.plan["rows"]) if job.plan and "rows" in job.plan else None,
            train_loss=view.metrics.get("train_loss"),
            valid_loss=view.metrics.get("valid_loss"),
            compute_seconds=round(sum(attempt.compute_seconds for attempt in attempts), 3),
            attempts=[AttemptOut.of(attempt) for attempt in attempts],
        )


def _resolved(job: Job) -> dict[str, Any] | None:
    specs = job.plan["specs"] if job.plan else []
    return specs[0] if len(specs) == 1 else None


class ForeseenJobDetails(JobDetails):
    """Osora's own part of a job, and what lies ahead of it."""

    estimated_start: int | None
    """When it is likely to start, while it is queued; null if that cannot be known."""
    waiting_for: str | None
    """What it waits for, in words."""

    @classmethod
    def of(cls, view: JobView) -> Self:
        """The same, with the forecast."""
        ahead = view.forecast
        return cls(**dict(JobDetails.of(view)), estimated_start=ahead.estimated_start, waiting_for=ahead.waiting_for)


class ListedJobOut(BaseModel):
    """A fine-tuning job in a list: without what would have to be worked out for each."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: JobStatus
    model: str
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    seed: int
    trained_tokens: int | None
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    error: dict[str, Any] | None
    osora: JobDetails

    @classmethod
    def of(cls, principal: Principal, view: JobView) -> Self:
        """The tenant's job, and what belongs to it, as a client sees them."""
        return cls(**_fields(principal, view), osora=JobDetails.of(view))


class JobOut(ListedJobOut):
    """A fine-tuning job, with all that is known of it."""

    osora: ForeseenJobDetails

    @classmethod
    def of(cls, principal: Principal, view: JobView) -> Self:
        """The tenant's job, what belongs to it, and its forecast, as a client sees them."""
        return cls(**_fields(principal, view), osora=ForeseenJobDetails.of(view))


def _fields(principal: Principal, view: JobView) -> dict[str, Any]:
    """What both ways to show a job have in common."""
    job = view.job
    hyperparameters = job.hyperparameters | (job.plan["hyperparameters"] if job.plan else {})
    return {
        "id": job.id,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "estimated_finish": view.forecast.estimated_finish,
        "status": job.status,
        "model": job.base,
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": principal.tenant_name,
        "training_file": job.training_file_id,
        "validation_file": job.validation_file_id,
        "result_files": job.result_file_ids,
        "hyperparameters": hyperparameters,
        "method": {"type": job.method, job.method: {"hyperparameters": hyperparameters}},
        "seed": job.seed,
        "trained_tokens": job.trained_tokens,
        "metadata": job.metadata_ or None,
        "user_provided_suffix": job.suffix,
        "error": job.error,
    }


class ProbeOut(BaseModel):
    """The first steps of a job, as a worker has taken them."""

    steps: int
    train_loss: list[float]
    """After each."""
    seconds: float
    """That they took; each with whatever else trained in it."""
    tokens_per_second: float


class TokensOut(BaseModel):
    """An epoch's tokens: of the rows that a job trains on, prompts included, and of these what the loss counts; and of
    the rows that it validates on."""

    training: int | None
    trained: int | None
    validation: int | None


class DryRunOut(BaseModel):
    """A job as it would be. What cannot be told is null, and `warnings` say why."""

    object: Literal["fine_tuning.job.dry_run"] = "fine_tuning.job.dry_run"
    model: str
    method: dict[str, Any]
    seed: int
    """If the request names none, one that was drawn: with it the job trains as its probe did."""
    hyperparameters: dict[str, Any]
    osora: dict[str, Any]
    """The settings, with all that was left open as values; of a sweep, `sweep` has those of its members that differ."""
    rows: RowsOut
    tokens: TokensOut
    steps: int
    queue_position: int | None
    estimated_start: int | None
    estimated_finish: int | None
    estimated_seconds: float | None
    """From its start to its end."""
    points: list[SizedPointOut]
    """Of the dial: one, or of a sweep over presets one for each."""
    adapter_bytes: int | None
    """Of the adapter's values, of several points the largest one's; its file has some thousand more, of names and
    settings."""
    warnings: list[str]
    probe: ProbeOut | None


class EventOut(BaseModel):
    """A line of a job's history; `data` of a metrics event holds the figures."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: EventLevel
    type: EventType
    message: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> Self:
        """The event's row as a client sees it."""
        return cls(
            id=event_id(event.id),
            created_at=event.created_at,
            level=event.level,
            type=event.type,
            message=event.message,
            data=event.data or {},
        )


class CheckpointOut(BaseModel):
    """A point that the job can be called at, or that another can continue from: by its id or its model name."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, Any]

    @classmethod
    def of(cls, principal: Principal, job: Job, checkpoint: Checkpoint) -> Self:
        """The checkpoint's row as a client sees it."""
        return cls(
            id=checkpoint.id,
            created_at=checkpoint.created_at,
            fine_tuning_job_id=checkpoint.job_id,
            fine_tuned_model_checkpoint=AdapterRef.of_checkpoint(principal.tenant_name, job, checkpoint).name,
            step_number=checkpoint.step,
            metrics={"step": checkpoint.step, **checkpoint.metrics},
        )
