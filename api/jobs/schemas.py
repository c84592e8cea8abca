"""Jobs, events and checkpoints as OpenAI shapes them; what is ours of a job is under `osora`."""

from typing import Any, Literal, Self

from pydantic import BaseModel
from sqlalchemy.orm import Session

from registry import jobs
from registry.ids import event_id
from registry.models import AttemptOutcome, Checkpoint, EventLevel, EventType, Job, JobAttempt, JobEvent
from registry.models import JobStatus as JobStatus
from registry.tenants import Principal


class AttemptOut(BaseModel):
    """One worker's try at the job."""

    number: int
    worker_id: str
    first_step: int
    started_at: int
    finished_at: int | None
    outcome: AttemptOutcome | None
    error: dict[str, Any] | None

    @classmethod
    def of(cls, attempt: JobAttempt) -> Self:
        """The attempt's row as a client sees it: without the token."""
        return cls(
            number=attempt.number,
            worker_id=attempt.worker_id,
            first_step=attempt.first_step,
            started_at=attempt.started_at,
            finished_at=attempt.finished_at,
            outcome=attempt.outcome,
            error=attempt.error,
        )


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
    attempts: list[AttemptOut]


class JobOut(BaseModel):
    """A fine-tuning job."""

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
    error: dict[str, Any] | None
    osora: JobDetails

    @classmethod
    def of(cls, session: Session, principal: Principal, job: Job) -> Self:
        """The job's row, and what belongs to it, as a client sees them."""
        return cls(
            id=job.id,
            created_at=job.created_at,
            finished_at=job.finished_at,
            estimated_finish=job.estimated_finish,
            status=job.status,
            model=job.base,
            fine_tuned_model=job.fine_tuned_model,
            organization_id=principal.tenant_name,
            training_file=job.training_file_id,
            validation_file=job.validation_file_id,
            result_files=[job.result_file_id] if job.result_file_id else [],
            hyperparameters=job.hyperparameters,
            method={"type": "supervised", "supervised": {"hyperparameters": job.hyperparameters}},
            seed=job.seed,
            trained_tokens=job.trained_tokens,
            metadata=job.metadata_ or None,
            error=job.error,
            osora=JobDetails(
                step=job.step,
                total_steps=job.total_steps,
                adapter_id=job.adapter_id,
                started_at=job.started_at,
                requested=job.signal,
                queue_position=jobs.queue_position(session, job),
                settings=job.osora,
                attempts=[AttemptOut.of(attempt) for attempt in jobs.attempts(session, principal, job.id)],
            ),
        )


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
    """A point that the job can resume from."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: None = None
    """Only whole jobs can be called so far."""
    step_number: int
    metrics: dict[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The checkpoint's row as a client sees it."""
        return cls(
            id=checkpoint.id,
            created_at=checkpoint.created_at,
            fine_tuning_job_id=checkpoint.job_id,
            step_number=checkpoint.step,
            metrics={"step": checkpoint.step, **checkpoint.metrics},
        )
