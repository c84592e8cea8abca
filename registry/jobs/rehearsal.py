"""A job as it would be, without its being there."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from osora_common.presets import Point
from registry import bases, overlaps
from registry.context import Registry
from registry.jobs import points
from registry.jobs.forecast import HISTORY_JOBS, Forecast, foresee_new
from registry.jobs.requests import submit
from registry.jobs.types import JobRequest
from registry.models import Adapter, File, Job, JobAttempt, Method
from registry.tenants import Principal


@dataclass(frozen=True)
class Pace:
    """How fast jobs of a base and a method have been lately: seconds of training for a token, and seconds beside it."""

    token_seconds: float
    further_seconds: float

    def seconds(self, tokens: int) -> float:
        """Of a job that reads so many tokens in all."""
        return self.further_seconds + tokens * self.token_seconds


@dataclass(frozen=True)
class Rehearsal:
    """What is known of a job before it is submitted, and its files."""

    base: str
    method: Method
    seed: int
    hyperparameters: dict[str, Any]
    osora: dict[str, Any]
    points: tuple[Point, ...]
    training_file: File
    validation_file: File | None
    begun_with: Adapter | None
    """The adapter that it goes on from; of a checkpoint the modules are not known."""
    forecast: Forecast
    overlap: dict[str, Any] | None
    """A warning of rows that are in both files."""
    pace: Pace | None
    """None where no such job has succeeded yet."""


def rehearse(registry: Registry, principal: Principal, request: JobRequest, offers: bases.Offers) -> Rehearsal:
    """Submits the job, takes all of it back, and sees where it would stand. Raises what `submit` does."""
    with registry.sessions() as session:  # which is rolled back, as nothing is committed
        job = submit(session, principal, request, registry.settings, offers)
        session.expunge_all()
    with registry.reading() as session:  # what follows is more work, and writers wait for each other
        training, validation = job.training_file_id, job.validation_file_id
        return Rehearsal(
            base=job.base,
            method=job.method,
            seed=job.seed,
            hyperparameters=job.hyperparameters,
            osora=job.osora,
            points=points.of_job(job),
            training_file=session.get_one(File, training),
            validation_file=None if validation is None else session.get_one(File, validation),
            begun_with=None if job.from_adapter_id is None else session.get(Adapter, job.from_adapter_id),
            overlap=None if validation is None else overlaps.warning(session, training, validation),
            forecast=foresee_new(session, principal.tenant_id, job.base, job.priority, registry.settings),
            pace=_pace(session, job.base, job.method),
        )


def _pace(session: Session, base: str, method: Method) -> Pace | None:
    lately = (
        select(Job.id, Job.trained_tokens)
        .where(Job.status == "succeeded", Job.base == base, Job.method == method)
        .where(Job.probe_steps.is_(None), Job.trained_tokens > 0)
        .order_by(Job.queued_at.desc())
        .limit(HISTORY_JOBS)
    )
    tokens = {row.id: row.trained_tokens for row in session.execute(lately)}
    if not tokens:
        return None
    holding = func.sum(JobAttempt.finished_at - JobAttempt.started_at)
    spent = select(func.sum(JobAttempt.compute_seconds), holding).where(JobAttempt.job_id.in_(tokens))
    computing, held = (float(seconds or 0) for seconds in session.execute(spent).one())
    # A job's share of common steps is less than it waited for them.
    return Pace(computing / sum(tokens.values()), max(0.0, held - computing) / len(tokens))
