"""Jobs to test with."""

import io
import json
from dataclasses import replace
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from registry import files, jobs
from registry.context import Registry
from registry.jobs import Attempt, JobRequest, NewAdapter
from registry.models import File, Job
from registry.tenants import Principal

CHAT_ROW = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}


def upload(registry: Registry, principal: Principal, rows: list[Any] | None = None) -> File:
    """Stores a small training file."""
    lines = "".join(json.dumps(row) + "\n" for row in rows or [CHAT_ROW])
    return files.ingest(registry, principal, io.BytesIO(lines.encode()), "train.jsonl", "fine-tune")


def submit(registry: Registry, principal: Principal, **request: Any) -> Job:
    """Queues a job, on a file of its own unless told otherwise."""
    training_file = request.pop("training_file", None) or upload(registry, principal).id
    wanted = JobRequest(**{"base": "osora-tiny", "training_file": training_file, **request})
    with registry.transaction() as session:
        return jobs.submit(session, principal, wanted, registry.settings)


def claim(registry: Registry, job: Job, worker_id: str = "worker-1") -> Attempt:
    """Claims a job that must be there to claim, as a worker that has no other, from a silent one if need be."""
    with registry.transaction() as session:
        jobs.reap(session)
        attempt = jobs.claim(session, job.id, worker_id, lease_seconds=60, alone=True)
    assert attempt is not None, f"{job.id} could not be claimed"
    return attempt


def read(registry: Registry, principal: Principal, job: Job) -> Job:
    """The job as it is now."""
    with registry.reading() as session:
        return jobs.get(session, principal, job.id)


def expire_lease(registry: Registry, job: Job) -> None:
    """Makes the job's worker look silent for too long, without waiting for it."""
    with registry.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(lease_expires_at=0))


def messages(registry: Registry, principal: Principal, job: Job) -> list[str]:
    """The messages of the job's events, in order."""
    with registry.reading() as session:
        return [event.message for event in jobs.events(session, principal, job.id, limit=1000).data]


def new_adapter(attempt: Attempt, mix: int = 0) -> NewAdapter:
    """What a worker would publish."""
    return NewAdapter(
        step=9,
        object_key=f"adapters/{attempt.job_id}/{attempt.number}/adapter.zip",
        sha256="a" * 64,
        bytes=1234,
        base_fingerprint="base-hash",
        basis_fingerprint="basis-hash",
        rank=16,
        parameters=5678,
        target_modules=["q_proj"],
        mix=mix,
    )


def record_checkpoint(session: Session, attempt: Attempt, step: int, **changes: Any) -> list[str]:
    """A checkpoint, as a worker records it."""
    folder = f"checkpoints/{attempt.job_id}/{attempt.number}"
    said: dict[str, Any] = {
        "object_key": f"{folder}/{step}.safetensors",
        "sha256": "b" * 64,
        "bytes": 9,
        "adapter": replace(new_adapter(attempt), step=step, object_key=f"{folder}/{step}.zip"),
        "ends_epoch": False,
        "metrics": {},
        **changes,
    }
    return jobs.record_checkpoint(session, attempt, step=step, **said)
