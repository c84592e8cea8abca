"""What a soak runs on: an installation of its own, with settings that let a minute show what takes hours else."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.soak_fleet import Fleet, Redis
from benchmarks.soak_jobs import BASE, RANK, make_base
from registry import jobs, tenants
from registry.__main__ import init
from registry.context import Registry
from registry.jobs import JobRequest
from registry.models import TERMINAL, Job, JobStatus
from registry.publisher import Publisher
from registry.settings import Settings
from registry.tenants import Principal

LEASE_SECONDS = 5.0
_MAX_ATTEMPTS = 100


@dataclass(frozen=True)
class Options:
    """What to run."""

    jobs: int = 60
    workers: int = 3
    worker_jobs: int = 1
    kill_seconds: float = 4.0
    base: str | None = None
    """A path or name; None makes a small one."""
    database_url: str | None = None
    """An empty database; None makes one."""


@dataclass(frozen=True)
class Installation:
    """Everything that outlives the workers."""

    folder: Path
    registry: Registry
    principal: Principal
    publisher: Publisher
    redis: Redis
    fleet: Fleet

    def submit(self, request: JobRequest) -> str:
        """As the API does it: the row and its wake-up in one transaction, published at once."""
        with self.registry.transaction() as session:
            job_id = jobs.submit(session, self.principal, request, self.registry.settings).id
        self.publisher.relay(self.registry)
        return job_id

    def live_jobs(self) -> Sequence["LiveJob"]:
        """All jobs that have not ended, by one look."""
        columns = (Job.id, Job.status, Job.attempt, Job.worker_id)
        with self.registry.reading() as session:
            rows = session.execute(select(*columns).where(Job.status.not_in(TERMINAL)))
            return [LiveJob(*row) for row in rows]

    def attempt(self, job_id: str) -> tuple[int, bool]:
        """The number of a job's latest attempt, and whether the job has ended."""
        with self.registry.reading() as session:
            job = session.get_one(Job, job_id)
            return job.attempt, job.is_terminal


@dataclass(frozen=True)
class LiveJob:
    """A job that has not ended, as it was when looked at."""

    id: str
    status: JobStatus
    attempt: int
    worker_id: str | None


@contextmanager
def installation(options: Options) -> Iterator[Installation]:
    """A new one, with nobody working yet. Its folder goes at the end, unless something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="osora-soak-"))
    redis = Redis(folder / "run")
    try:
        chosen: dict[str, Any] = {
            "data_dir": folder / "data",
            "database_url": options.database_url or f"sqlite:///{folder / 'osora.db'}",
            "broker_url": redis.url,
            "object_store": f"file://{folder / 'objects'}",
            "bases": f"{BASE}={options.base or make_base(folder / 'base')}",
            "basis_rank": RANK,
            "device": "cpu",
            "worker_jobs": options.worker_jobs,
            "max_attempts": _MAX_ATTEMPTS,
            "lease_seconds": LEASE_SECONDS,
            "heartbeat_seconds": 1.0,
            "reconcile_seconds": 3.0,
        }
        settings = Settings(**chosen)
        env = {**os.environ, **{f"OSORA_{name.upper()}": str(value) for name, value in chosen.items()}}
        # Several workers share the machine's cores. Teams of threads that wait for each other's turn there would spend
        # a hundred times longer on a step.
        env["OMP_THREAD_LIMIT"] = "1"
        init(settings)
        publisher, fleet = Publisher(redis.url), Fleet(folder, env, options.workers)
        with Registry.open(settings) as registry:
            with registry.reading() as session:
                principal = tenants.authenticate(session, settings.local_key_path.read_text().strip())
                if session.scalar(select(func.count()).select_from(Job)):
                    sys.exit(f"{settings.database_url} has jobs already; name an empty database")
            try:
                yield Installation(folder, registry, principal, publisher, redis, fleet)
            finally:
                fleet.close()
                publisher.close()
    finally:
        redis.kill()
