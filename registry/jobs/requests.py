"""The tenant's side of a job: submit, cancel, pause, resume."""

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from osora_common.hyperparameters import Spec
from osora_common.ranks import Ranks
from registry import audit, bases, files, overlaps
from registry.added_bases import offered
from registry.errors import Conflict, InvalidRequest
from registry.ids import new_id
from registry.jobs import begun_with, metering
from registry.jobs.queries import job_not_found
from registry.jobs.state import append_event, end, requeue
from registry.jobs.state import pause as set_paused
from registry.jobs.types import JobRequest
from registry.limits import quotas
from registry.models import File, Job, Method
from registry.settings import Settings
from registry.tenants import Principal


def submit(
    session: Session,
    principal: Principal,
    request: JobRequest,
    settings: Settings,
    offers: bases.Offers = MappingProxyType({}),
) -> Job:
    """Queues a job; its wake-up is in the outbox when the transaction commits.

    Raises `RateLimited` where the tenant may not queue one more, and what `accepted` does.
    """
    quotas.check_new_job(session, principal)
    job = accepted(session, principal, request, settings, offers)
    requeue(session, job)
    append_event(session, job, f"Created fine-tuning job: {job.id}")
    append_event(session, job, "Files validated, moving job to queued state")
    if request.validation_file is not None:
        shared = overlaps.warning(session, request.training_file, request.validation_file)
        if shared is not None:
            append_event(session, job, f"{shared['message']}. Next: {shared['next_action']}", level="warn", data=shared)
    return job


def accepted(
    session: Session, principal: Principal, request: JobRequest, settings: Settings, offers: bases.Offers
) -> Job:
    """A job that may be queued, already among the others but without a wake-up.

    Raises:
        InvalidRequest: the base is not on offer or cannot be used, a file is not training data or not for this base,
            what to begin with does not fit, or an alias stands for several models.
        Forbidden: the priority is higher than the tenant may have.
        NotFound: no such file, or nothing such to begin with, of this tenant's.
    """
    paths = offered.paths(session, settings)
    request = begun_with.without_aliases(session, principal, request, paths)
    held = begun_with.hold(session, principal, request, settings)
    base = request.base if held is None else held.base
    if base not in paths or not offered.hold(session, settings, base):
        raise InvalidRequest(
            f"base {base!r} is not on offer here, only {', '.join(paths)}",
            param="model",
            code="model_not_found",
            next_action="choose one that is, or have whoever runs the service add it (osora bases add)",
        )
    targets = request.osora.get("target_modules")
    ranks = bases.ranks(offers, base, targets, settings)
    if held is None:
        bases.check_rank(ranks, request.osora.get("rank"))
    for param in ("training_file", "validation_file"):
        if (file_id := getattr(request, param)) is not None:
            file = files.get_for_training(session, principal, file_id, param=param)
            _check_format(file, request.method, param)
            bases.check_job(offers, base, file, param)
            if param == "training_file":
                _check_share(file, request.osora)
    if "max_length" in request.osora:
        bases.check_length(offers, base, request.osora["max_length"])
    if isinstance(targets, list):
        bases.check_modules(offers, base, targets)
    job = Job(
        id=new_id("ftjob-"),
        tenant_id=principal.tenant_id,
        base=base,
        training_file_id=request.training_file,
        validation_file_id=request.validation_file,
        suffix=request.suffix,
        seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
        metadata_=request.metadata,
        method=request.method,
        hyperparameters=request.hyperparameters,
        osora=_of_rank(request.osora, ranks)
        if held is None
        else {**request.osora, "from_adapter": request.from_adapter, "rank": held.rank},
        from_adapter_id=None if held is None else held.id,
        priority=quotas.priority_for(session, principal, request.osora.get("priority")),
        status="queued",
        max_attempts=settings.max_attempts,
    )
    session.add(job)
    metering.open_account(session, job, principal.key_id)
    session.flush()
    return job


def _of_rank(osora: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """With a rank that the basis has, where the default is above that."""
    default = ranks.resolved(None)
    return osora if default == Spec.rank else {"rank": default, **osora}


def _check_format(file: File, method: Method, param: str) -> None:
    if (file.format == "preference") != (method == "dpo"):
        fitting = "dpo" if file.format == "preference" else "supervised"
        raise InvalidRequest(
            f"file {file.id!r} holds rows in the {file.format} format, which the method {method!r} cannot learn from",
            param=param,
            code="invalid_training_data",
            next_action=f"use the method {fitting!r}, or upload rows for {method!r}",
        )


def _check_share(file: File, osora: Mapping[str, Any]) -> None:
    if "validation_share" in osora and file.rows == 1:
        raise InvalidRequest(
            f"file {file.id!r} has a single row, so that none can be held out for validation",
            param="osora.validation_share",
            code="invalid_training_data",
            next_action="upload more rows, or leave out `osora.validation_share`",
        )


def cancel(session: Session, principal: Principal, job_id: str) -> Job:
    """Ends the job: at once, or, if it runs, at its worker's next heartbeat. Doing it twice is fine."""
    job = _lock(session, principal, job_id)
    if job.status == "cancelled" or job.signal == "cancel":
        return job
    _refuse_if_ended(job, "cancelled")
    audit.record(session, principal, "job.cancelled", "job", job.id, status=job.status)
    if job.status == "running":
        job.signal = "cancel"
        append_event(session, job, "Cancellation requested")
    else:
        end(session, job, "cancelled", "Job cancelled")
    return job


def pause(session: Session, principal: Principal, job_id: str) -> Job:
    """Sets the job aside: at once, or, if it runs, after a checkpoint. Doing it twice is fine."""
    job = _lock(session, principal, job_id)
    if job.status == "paused" or job.signal == "pause":
        return job
    _refuse_if_ended(job, "paused")
    if job.status == "running":
        job.signal = "pause"
        append_event(session, job, "Pause requested")
    else:
        set_paused(session, job)
    return job


def resume(session: Session, principal: Principal, job_id: str) -> Job:
    """Queues a paused job again, or withdraws a pause that has not happened yet. Doing it twice is fine."""
    job = _lock(session, principal, job_id)
    _refuse_if_ended(job, "resumed")
    if job.status == "paused":
        requeue(session, job)
        append_event(session, job, "Job resumed, moving it to queued state")
    elif job.signal == "pause":
        job.signal = None
        append_event(session, job, "Pause withdrawn")
    return job


def _lock(session: Session, principal: Principal, job_id: str) -> Job:
    job = session.scalars(
        select(Job)
        .where(Job.tenant_id == principal.tenant_id, Job.id == job_id, Job.probe_steps.is_(None))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if job is None:
        raise job_not_found(job_id)
    return job


def _refuse_if_ended(job: Job, verb: str) -> None:
    if job.is_terminal or job.signal == "cancel":
        state = "being cancelled" if job.signal == "cancel" else job.status
        raise Conflict(
            f"job {job.id} is {state} and cannot be {verb}",
            code="job_not_live",
            next_action="submit a new job with the same file",
        )
