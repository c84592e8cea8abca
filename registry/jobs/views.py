"""Jobs with what belongs to them, read at once: all that a client is shown of a job."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from registry.jobs.forecast import Forecast, foresee
from registry.jobs.queries import attempts_of, queue_positions
from registry.models import Job, JobAttempt
from registry.settings import Settings


@dataclass(frozen=True)
class JobView:
    """A job's row, every attempt at it in order, and what lies ahead of it."""

    job: Job
    attempts: Sequence[JobAttempt]
    forecast: Forecast


def view(session: Session, job: Job, settings: Settings) -> JobView:
    """The job with its whole forecast."""
    return JobView(job, attempts_of(session, [job])[job.id], foresee(session, job, settings))


def views(session: Session, jobs: Sequence[Job]) -> list[JobView]:
    """Jobs for a list, with no more of a forecast than needs no working out. As many queries for many as for one."""
    attempts, positions = attempts_of(session, jobs), queue_positions(session, jobs)
    return [
        JobView(job, attempts[job.id], Forecast(positions.get(job.id), estimated_finish=job.estimated_finish))
        for job in jobs
    ]
