"""What a client may call besides a base: an adapter, or a checkpoint of a job, by id or name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import adapters
from registry.context import Registry
from registry.errors import Conflict, NotFound
from registry.ids import checkpoint_id, checkpoint_name, parse_checkpoint
from registry.models import Adapter, Checkpoint, Job
from registry.tenants import Principal


@dataclass(frozen=True)
class AdapterRef:
    """All that an inference server needs to fetch an adapter and to know it for what it is, and what a client sees."""

    id: str
    name: str
    version: int
    job_id: str
    step: int | None
    """The step of its job whose state it is; None for an adapter of before that was noted."""
    rank: int
    object_key: str
    sha256: str
    bytes: int
    base: str
    base_fingerprint: str
    basis_fingerprint: str
    created_at: int
    parameters: int | None = None
    target_modules: Sequence[str] | None = None
    """Like `parameters`, known of a published adapter; a checkpoint's row has neither."""

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        """The reference to an adapter's row."""
        return cls(
            id=adapter.id,
            name=adapter.name,
            version=adapter.version,
            job_id=adapter.job_id,
            step=adapter.step,
            rank=adapter.rank,
            object_key=adapter.object_key,
            sha256=adapter.sha256,
            bytes=adapter.bytes,
            base=adapter.base,
            base_fingerprint=adapter.base_fingerprint,
            basis_fingerprint=adapter.basis_fingerprint,
            created_at=adapter.created_at,
            parameters=adapter.parameters,
            target_modules=adapter.target_modules,
        )

    @classmethod
    def of_checkpoint(cls, principal: Principal, job: Job, checkpoint: Checkpoint) -> Self:
        """The reference to a checkpoint of the tenant's job. A checkpoint never changes: it has one version."""
        return cls(
            id=checkpoint.id,
            name=checkpoint_name(job.base, principal.tenant_name, job.suffix, job.id, checkpoint.step),
            version=1,
            job_id=job.id,
            step=checkpoint.step,
            rank=checkpoint.rank,
            object_key=checkpoint.adapter_key,
            sha256=checkpoint.adapter_sha256,
            bytes=checkpoint.adapter_bytes,
            base=job.base,
            base_fingerprint=checkpoint.base_fingerprint,
            basis_fingerprint=checkpoint.basis_fingerprint,
            created_at=checkpoint.created_at,
        )


def refer(session: Session, principal: Principal, id_or_name: str, *, param: str = "adapter_id") -> AdapterRef:
    """What the tenant calls `adp-…`, `ftckpt_…` or `ft:…`.

    Raises `NotFound`, naming the field `param`; for a checkpoint that is no longer kept, it names those that are.
    """
    told = parse_checkpoint(id_or_name)
    if told is None:
        return AdapterRef.of(adapters.get(session, principal, id_or_name, param=param))
    short_id, step = told
    of_tenant = (
        select(Job, Checkpoint)
        .join(Checkpoint, Checkpoint.job_id == Job.id)
        .where(Job.tenant_id == principal.tenant_id)
    )
    found = session.execute(of_tenant.where(Checkpoint.id == checkpoint_id(short_id, step))).one_or_none()
    if found is not None:
        ref = AdapterRef.of_checkpoint(principal, *found)
        if id_or_name in (ref.id, ref.name):
            return ref
    kept = session.execute(of_tenant.where(Job.id.endswith(short_id, autoescape=True)).order_by(Checkpoint.step))
    steps, names = [], []
    for job, checkpoint in kept:
        steps.append(str(checkpoint.step))
        names.append(AdapterRef.of_checkpoint(principal, job, checkpoint).name)
    raise NotFound(
        f"no checkpoint {id_or_name!r}" + (f"; its job has kept those of step {', '.join(steps)}" if steps else ""),
        param=param,
        code="checkpoint_not_found",
        next_action=f"call {names[-1]!r}" if names else "list the job's checkpoints; after a week they are gone",
    )


def delete(registry: Registry, principal: Principal, id_or_name: str) -> str:
    """Deletes an adapter or a checkpoint, row and bytes, and returns its id.

    Raises `NotFound` as `refer` does, and `Conflict` while a live job needs it: one that begins with it, or a
    checkpoint's own.
    """
    if parse_checkpoint(id_or_name) is None:
        return adapters.delete(registry, principal, id_or_name).id
    with registry.transaction() as session:
        ref = refer(session, principal, id_or_name)
        job = session.scalars(select(Job).where(Job.id == ref.job_id).with_for_update()).one()
        checkpoint = session.scalars(select(Checkpoint).where(Checkpoint.id == ref.id).with_for_update()).one_or_none()
        user = adapters.live_users(session, [ref.id]).get(ref.id)
        user = user if job.is_terminal else job.id
        if user is not None:
            raise Conflict(
                f"the job {user}, which has not ended, needs the checkpoint {id_or_name!r}",
                code="checkpoint_in_use",
                next_action=f"wait for {user} or cancel it",
            )
        if checkpoint is not None:
            session.delete(checkpoint)
    for key in (ref.object_key, checkpoint.object_key if checkpoint else None):
        if key is not None:
            registry.store.delete(key)
    return ref.id
