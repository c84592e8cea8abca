"""How an attempt ends a job. Every write is fenced by its token and raises `LeaseLostError`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import webhooks
from registry.files import RESULTS_PURPOSE
from registry.ids import model_name, new_id
from registry.jobs.retry import retry_or_fail
from registry.jobs.state import append_event, close_attempt, end, lock_fenced, obey_signal
from registry.jobs.types import Attempt, JobError, LeaseLostError, NewAdapter, NewResultFile, Plan
from registry.models import Adapter, File, Job, JobAttempt, JobStatus


def complete(
    session: Session,
    attempt: Attempt,
    *,
    step: int,
    trained_tokens: int,
    adapter: NewAdapter,
    metrics: dict[str, Any],
    result_files: Sequence[NewResultFile] = (),
    plan: Plan | None = None,
) -> Adapter:
    """Publishes the adapter and ends the job as succeeded; the same attempt may repeat it.

    `metrics` are the final ones, and become the data of the closing event. `plan` is what the job's plan has come down
    to, where it left something open.
    """
    try:
        job = lock_fenced(session, attempt, step=step, trained_tokens=trained_tokens)
    except LeaseLostError:
        published = _published_by(session, attempt)
        if published is None:
            raise
        return published
    adapter_id = new_id("adp-")
    row = Adapter(
        id=adapter_id,
        tenant_id=job.tenant_id,
        job_id=job.id,
        name=model_name(job.base, attempt.tenant_name, job.suffix, adapter_id),
        step=adapter.step,
        base=job.base,
        base_fingerprint=adapter.base_fingerprint,
        basis_fingerprint=adapter.basis_fingerprint,
        rank=adapter.rank,
        mix=adapter.mix,
        parameters=adapter.parameters,
        target_modules=adapter.target_modules,
        object_key=adapter.object_key,
        sha256=adapter.sha256,
        bytes=adapter.bytes,
    )
    session.add(row)
    job.adapter_id, job.fine_tuned_model = row.id, row.name
    job.result_file_ids = [_add_result_file(session, job, result) for result in result_files]
    if plan is not None:
        job.plan = {**(job.plan or {}), **plan}
    for result, file_id in zip(result_files, job.result_file_ids, strict=True):
        append_event(session, job, f"Result file {file_id}: {result.filename}", data={"file_id": file_id})
    append_event(
        session,
        job,
        f"New fine-tuned model created: {row.name}",
        data={"adapter_id": row.id, "adapter_step": row.step, **metrics},
    )
    webhooks.record(session, job.tenant_id, "adapter.published", {"id": row.id, "name": row.name, "job_id": job.id})
    end(session, job, "succeeded", "The job has successfully completed")
    close_attempt(session, job, "succeeded")
    return row


def fail(session: Session, attempt: Attempt, error: JobError) -> JobStatus:
    """Ends the attempt with an error, and says what became of the job.

    A user's fault fails the job; any other puts it back in the queue while attempts are left.
    """
    job = lock_fenced(session, attempt)
    outcome = obey_signal(session, job)
    if outcome is not None:
        close_attempt(session, job, outcome, error=error)
    elif error["fault"] == "user":
        end(session, job, "failed", f"The job failed: {error['message']}", error=error)
        close_attempt(session, job, "failed", error=error)
    else:
        said = retry_or_fail(session, job, error, backoff=True)
        close_attempt(session, job, "failed", error=said)
    return job.status


def _published_by(session: Session, attempt: Attempt) -> Adapter | None:
    statement = (
        select(Adapter)
        .join(JobAttempt, JobAttempt.job_id == Adapter.job_id)
        .where(JobAttempt.token == attempt.token, JobAttempt.outcome == "succeeded")
    )
    return session.scalars(statement).one_or_none()


def _add_result_file(session: Session, job: Job, result: NewResultFile) -> str:
    file = File(
        id=new_id("file-"),
        tenant_id=job.tenant_id,
        filename=result.filename,
        purpose=RESULTS_PURPOSE,
        object_key=result.object_key,
        bytes=result.bytes,
        sha256=result.sha256,
    )
    session.add(file)
    return file.id
