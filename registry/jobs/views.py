"""Jobs with what belongs to them, read at once: all that a client is shown of a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from registry.added_bases import offered
from registry.errors import OsoraError
from registry.jobs import begun_with
from registry.jobs.forecast import Forecast, foresee, foresee_new
from registry.jobs.queries import attempts_of, newest_metrics_of, queue_positions
from registry.jobs.types import JobRequest
from registry.models import Job, JobAttempt
from registry.references import refer
from registry.settings import Settings
from registry.tenants import Principal


@dataclass(frozen=True)
class JobView:
    """A job's row, every attempt at it in order, what lies ahead of it, and what its newest checkpoint measured."""

    job: Job
    attempts: Sequence[JobAttempt]
    forecast: Forecast
    metrics: Mapping[str, Any] = field(default_factory=dict)


def view(session: Session, job: Job, settings: Settings) -> JobView:
    """The job with its whole forecast."""
    metrics = newest_metrics_of(session, [job]).get(job.id, {})
    return JobView(job, attempts_of(session, [job])[job.id], foresee(session, job, settings), metrics)


def expected(session: Session, principal: Principal, request: JobRequest, settings: Settings) -> Forecast:
    """The forecast of a job that is about to be submitted; an empty one, if it will be refused."""
    try:
        request = begun_with.without_aliases(session, principal, request, offered.paths(session, settings))
        base = request.base or refer(session, principal, request.from_adapter or "").base
    except OsoraError:
        return Forecast()
    return foresee_new(session, principal.tenant_id, base, request.osora.get("priority", "normal"), settings)


def views(session: Session, jobs: Sequence[Job]) -> list[JobView]:
    """Jobs for a list, with no more of a forecast than needs no working out. As many queries for many as for one."""
    attempts, positions = attempts_of(session, jobs), queue_positions(session, jobs)
    metrics = newest_metrics_of(session, jobs)
    ahead = {job.id: Forecast(positions.get(job.id), estimated_finish=job.estimated_finish) for job in jobs}
    return [JobView(job, attempts[job.id], ahead[job.id], metrics.get(job.id, {})) for job in jobs]
