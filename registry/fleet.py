"""What all tenants' jobs come to now, and who works at them: for an operator's eyes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.db import now
from registry.models import Job, JobEvent, JobStatus, Worker
from registry.tenants import Principal

_ALIVE: tuple[JobStatus, ...] = ("validating_files", "queued", "running", "paused")


@dataclass(frozen=True)
class Crew:
    """A worker, and what it does."""

    worker: Worker
    is_live: bool
    """Whether it was heard of within a lease's time."""
    jobs: int
    tokens_per_second: float
    """Of its jobs, as each said when it last told its figures."""


@dataclass(frozen=True)
class Fleet:
    """The workers, the oldest first, and how many jobs of each base are in which state that is no end."""

    crews: Sequence[Crew]
    queue: Mapping[str, Mapping[str, int]]


def look(session: Session, principal: Principal, within_seconds: float) -> Fleet:
    """The fleet as it is now. Raises `Forbidden` to all but operators."""
    principal.require("operator")
    time = session.execute(select(now())).scalar_one()
    jobs, pace = _running(session)
    crews = [
        Crew(worker, worker.seen_at >= time - within_seconds, jobs.get(worker.id, 0), pace.get(worker.id, 0.0))
        for worker in session.scalars(select(Worker).order_by(Worker.started_at, Worker.id))
    ]
    return Fleet(crews, _queue(session))


def _running(session: Session) -> tuple[dict[str, int], dict[str, float]]:
    """How many jobs each worker has, and the tokens a second of all of them."""
    latest = (
        select(JobEvent.data)
        .where(JobEvent.job_id == Job.id, JobEvent.type == "metrics", JobEvent.data.is_not(None))
        .order_by(JobEvent.id.desc())
        .limit(1)
        .correlate(Job)
        .scalar_subquery()
    )
    jobs: dict[str, int] = {}
    pace: dict[str, float] = {}
    for worker_id, data in session.execute(select(Job.worker_id, latest).where(Job.status == "running")):
        jobs[worker_id] = jobs.get(worker_id, 0) + 1
        pace[worker_id] = pace.get(worker_id, 0.0) + _tokens_per_second(data)
    return jobs, pace


def _tokens_per_second(data: Mapping[str, Any] | None) -> float:
    said = (data or {}).get("tokens_per_second")
    return float(said) if isinstance(said, int | float) else 0.0


def _queue(session: Session) -> dict[str, dict[str, int]]:
    counted = (
        select(Job.base, Job.status, func.count())
        .where(Job.status.in_(_ALIVE), Job.probe_steps.is_(None))
        .group_by(Job.base, Job.status)
        .order_by(Job.base)
    )
    found: dict[str, dict[str, int]] = {}
    for base, status, count in session.execute(counted):
        found.setdefault(base, dict.fromkeys(_ALIVE, 0))[status] = count
    return found
