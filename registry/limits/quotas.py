"""What is counted in the database, in the transaction of what it is about: jobs, stored bytes, priority."""

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import outbox
from registry.db import take_turns
from registry.errors import Forbidden
from registry.limits import budgets, overrides
from registry.limits.values import Owner
from registry.models import Adapter, Checkpoint, File, Job, JobPriority
from registry.tenants import Principal
from registry.upload_tables import Upload, UploadPart

_RANK: dict[JobPriority, int] = {"low": 0, "normal": 1, "high": 2}
_RETRY_SECONDS = 15.0


def check_new_job(session: Session, principal: Principal) -> None:
    """Raises `RateLimited` where the tenant may not queue one more job, or has no budget or storage left for it.

    Until the transaction ends, no other job of the tenant's is queued.
    """
    owner = overrides.of_tenant(session, principal.tenant_id)
    budgets.check_training(session, owner)
    check_stored(session, principal.tenant_id)
    if (limit := owner.limits.queued_jobs) is None:
        return
    take_turns(session, f"queue {principal.tenant_id}")
    # Those that are paused are among them: resuming them asks nobody.
    waiting = select(func.count()).where(
        Job.tenant_id == principal.tenant_id, Job.status.in_(("queued", "paused")), Job.probe_steps.is_(None)
    )
    if session.scalars(waiting).one() >= limit:
        raise owner.exceeded(
            "queued_jobs",
            when="there is room again when one of them starts or is cancelled",
            retry_after=_RETRY_SECONDS,
            next_action="wait for one to start, or cancel one",
        )


def priority_for(session: Session, principal: Principal, asked: JobPriority | None) -> JobPriority:
    """The priority of a new job: what is asked for, else the usual one, as far as the tenant and its key may.

    Raises `Forbidden` for a higher one. An operator may have any.
    """
    if principal.has("operator"):
        return asked or "normal"
    owners = overrides.of_principal(session, principal)
    strictest = min(owners, key=lambda owner: _RANK[owner.limits.priority])
    highest = strictest.limits.priority
    if asked is None:
        return min("normal", highest, key=_RANK.__getitem__)
    if _RANK[asked] > _RANK[highest]:
        raise Forbidden(
            f"osora.priority is {asked!r}, and the jobs of the {strictest.kind} {strictest.id} may have {highest!r} "
            "at most (priority)",
            param="osora.priority",
            code="priority_not_allowed",
            next_action=f"ask for {highest!r} or less, or have whoever runs the service allow it",
        )
    return asked


def stored_bytes(session: Session, tenant_id: str) -> int:
    """What the tenant keeps in the object store."""
    counted = (
        select(func.sum(File.bytes)).where(File.tenant_id == tenant_id),
        select(func.sum(Adapter.bytes)).where(Adapter.tenant_id == tenant_id),
        select(func.sum(UploadPart.bytes))
        .join(Upload, Upload.id == UploadPart.upload_id)
        .where(Upload.tenant_id == tenant_id),
        select(func.sum(Checkpoint.adapter_bytes))
        .join(Job, Job.id == Checkpoint.job_id)
        .where(Job.tenant_id == tenant_id),
        select(func.sum(Checkpoint.bytes))
        .join(Job, Job.id == Checkpoint.job_id)
        .where(Job.tenant_id == tenant_id, Checkpoint.object_key.is_not(None)),
    )
    return sum(int(session.scalar(one) or 0) for one in counted)


def room(session: Session, tenant_id: str) -> int | None:
    """Bytes that the tenant may still store; None: there is no limit. Raises `QuotaExceeded` where it is none."""
    owner = overrides.of_tenant(session, tenant_id)
    if (limit := owner.limits.stored_bytes) is None:
        return None
    used = stored_bytes(session, tenant_id)
    if used >= limit:
        raise _storage_full(owner, used)
    return limit - used


def check_stored(session: Session, tenant_id: str, *, more: int = 0) -> None:
    """Raises `QuotaExceeded` where the tenant stores more than it may, or would with so many bytes `more`.

    Until the transaction ends, nobody else stores anything of the tenant's that is checked here.
    """
    owner = overrides.of_tenant(session, tenant_id)
    if (limit := owner.limits.stored_bytes) is None:
        return
    take_turns(session, f"stored {tenant_id}")
    used = stored_bytes(session, tenant_id)
    if used + more > limit:
        raise _storage_full(owner, used, more)


def used(session: Session, tenant_id: str) -> dict[str, int]:
    """What the tenant takes of the limits that are kept here, by their names."""
    jobs = select(Job.status, func.count()).where(Job.tenant_id == tenant_id, Job.probe_steps.is_(None))
    counts = {status: count for status, count in session.execute(jobs.group_by(Job.status))}
    return {
        "concurrent_jobs": counts.get("running", 0),
        "queued_jobs": counts.get("queued", 0) + counts.get("paused", 0),
        "stored_bytes": stored_bytes(session, tenant_id),
    }


def _storage_full(owner: Owner, used: int, more: int = 0) -> Exception:
    return owner.over_quota(
        "stored_bytes",
        used,
        more=more,
        code="stored_bytes",
        next_action="delete files, adapters or checkpoints that are not needed, or ask whoever runs the service for "
        "more",
    )


def held_back(session: Session, base: str) -> tuple[Collection[str], Collection[str]]:
    """The tenants of whom no job of the base may start now: none at all, and none that is not interrupted.

    The former have as many running as they may, whatever the base; the latter have used up their training.
    """
    waiting = select(Job.tenant_id).where(Job.status == "queued", Job.base == base).distinct()
    owners = overrides.of_tenants(session, session.scalars(waiting).all())
    running = _running(session, [owner.id for owner in owners if owner.limits.concurrent_jobs is not None])
    full = [owner.id for owner in owners if _is_full(owner, running.get(owner.id, 0))]
    spent = [owner.id for owner in owners if budgets.is_training_spent(session, owner)]
    return full, spent


def reason_to_wait(session: Session, job: Job) -> str | None:
    """Which limit a queued job waits for, in a few words; None if it is none."""
    owner = overrides.of_tenant(session, job.tenant_id)
    if not job.interrupted and budgets.is_training_spent(session, owner):
        return "its tenant's budget of training: what there was is spent"
    if _is_full(owner, _running(session, [owner.id]).get(owner.id, 0)):
        return f"another of its tenant's jobs to end: {owner.limits.concurrent_jobs} may run at once"
    return None


def wake_held_back(session: Session, job: Job) -> None:
    """Writes a wake-up for a job that was held back while this one ran: its own has been used up in vain."""
    owner = overrides.of_tenant(session, job.tenant_id)
    limit = owner.limits.concurrent_jobs
    if limit is None or _running(session, [owner.id]).get(owner.id, 0) < limit - 1:
        return
    waiting = select(Job).where(Job.tenant_id == job.tenant_id, Job.status == "queued", Job.id != job.id)
    oldest = waiting.order_by(Job.queued_at).limit(1)
    held = session.scalars(oldest).first()
    if held is not None:
        outbox.wake(session, held)


def _running(session: Session, tenant_ids: Collection[str]) -> dict[str, int]:
    if not tenant_ids:
        return {}
    counted = (
        select(Job.tenant_id, func.count())
        .where(Job.status == "running", Job.tenant_id.in_(tenant_ids))
        .group_by(Job.tenant_id)
    )
    return {tenant_id: count for tenant_id, count in session.execute(counted)}


def _is_full(owner: Owner, running: int) -> bool:
    limit = owner.limits.concurrent_jobs
    return limit is not None and running >= limit
