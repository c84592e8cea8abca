"""What a model's name means: an adapter or a checkpoint of a job, by id or name, or an alias of such or of a base."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, Select, and_, or_, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from registry import adapters, audit
from registry.context import Registry
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.holds import refuse_if_held
from registry.ids import checkpoint_id, checkpoint_name, may_be_ours, parse_checkpoint
from registry.models import Adapter, AdapterType, Checkpoint, Job, Tenant
from registry.names.split import choose
from registry.names.tables import AliasTarget, Permission
from registry.tenants import Principal

_FOR_INFERENCE = (
    "id", "name", "version", "job_id", "step", "object_key", "sha256", "base_fingerprint", "basis_fingerprint",
    "type",
)  # fmt: skip


@dataclass(frozen=True)
class AdapterRef:
    """All that an inference server needs to fetch an adapter and to know it for what it is, and what a client sees."""

    id: str
    name: str
    tenant_id: str
    """Whose it is: another than who asks, where that one may call it."""
    version: int
    job_id: str | None
    """None for an adapter that its tenant brought."""
    step: int | None
    """The step of its job whose state it is; None for an adapter without a job, or of before that was noted."""
    rank: int
    object_key: str
    sha256: str
    bytes: int
    base: str
    base_fingerprint: str
    basis_fingerprint: str | None
    """None for a plain LoRA."""
    created_at: int
    type: AdapterType = "osora"
    mix: int = 0
    """The size of its matrix C; 0 for one that has none."""
    parameters: int | None = None
    target_modules: Sequence[str] | None = None
    """Like `parameters`, known of a published adapter; a checkpoint's row has neither."""

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint of a job, not a published adapter."""
        return self.id.startswith("ftckpt_")

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        """The reference to an adapter's row."""
        return cls(
            id=adapter.id,
            name=adapter.name,
            tenant_id=adapter.tenant_id,
            version=adapter.version,
            job_id=adapter.job_id,
            step=adapter.step,
            rank=adapter.rank,
            mix=adapter.mix,
            object_key=adapter.object_key,
            sha256=adapter.sha256,
            bytes=adapter.bytes,
            base=adapter.base,
            base_fingerprint=adapter.base_fingerprint,
            basis_fingerprint=adapter.basis_fingerprint,
            created_at=adapter.created_at,
            type=adapter.type,
            parameters=adapter.parameters,
            target_modules=adapter.target_modules,
        )

    @classmethod
    def of_checkpoint(cls, tenant_name: str, job: Job, checkpoint: Checkpoint) -> Self:
        """The reference to a checkpoint of the tenant's job. A checkpoint never changes: it has one version."""
        return cls(
            id=checkpoint.id,
            name=checkpoint_name(job.base, tenant_name, job.suffix, job.id, checkpoint.step),
            tenant_id=job.tenant_id,
            version=1,
            job_id=job.id,
            step=checkpoint.step,
            rank=checkpoint.rank,
            mix=checkpoint.mix,
            object_key=checkpoint.adapter_key,
            sha256=checkpoint.adapter_sha256,
            bytes=checkpoint.adapter_bytes,
            base=job.base,
            base_fingerprint=checkpoint.base_fingerprint,
            basis_fingerprint=checkpoint.basis_fingerprint,
            created_at=checkpoint.created_at,
        )


@dataclass(frozen=True)
class Target:
    """A base, the adapter on it, if any, and the alias that was asked for, if one was."""

    base: str
    adapter: AdapterRef | None
    alias: str | None = None

    def payload(self) -> dict[str, Any]:
        """As an inference server wants it."""
        ref = None if self.adapter is None else asdict(self.adapter)
        adapter = ref and {name: ref[name] for name in _FOR_INFERENCE}
        return {"base": self.base, "adapter": adapter, "alias": self.alias}


def call(session: Session, principal: Principal, name: str, key: bytes, *, param: str = "adapter_id") -> Target:
    """What answers when the tenant asks for text by an id, a name or an alias.

    That is an adapter or a checkpoint, the tenant's own or one that it may call, or one of what the alias stands for:
    for the same `key` the same.

    Raises `NotFound`, naming the field `param`; for a checkpoint that is no longer kept, it names those that are.
    """
    # One query finds what is there by most names: those of adapters and checkpoints look like it.
    looks_like_ours = may_be_ours(name)
    ref = find(session, principal, name, shared=True) if looks_like_ours else None
    if ref is not None and ref.tenant_id == principal.tenant_id:
        return Target(ref.base, ref)
    # Before what others share, so that nobody can put a model of theirs in an alias's place.
    target = _aliased(session, principal, name, key, param)
    if target is not None:
        return target
    if not looks_like_ours:
        ref = find(session, principal, name, shared=True)
    if ref is None:
        raise _not_found(session, principal, name, param)
    return Target(ref.base, ref)


def refer(session: Session, principal: Principal, name: str, *, param: str = "adapter_id") -> AdapterRef:
    """The tenant's own adapter or checkpoint of this id or name, or the one that this alias stands for.

    Raises `NotFound` as `call` does, and for an alias of a base; `InvalidRequest` for an alias of several models.
    """
    ref = find(session, principal, name)
    if ref is not None:
        return ref
    meant = sole_target(session, principal, name, param=param)
    if meant is not None:
        if meant.is_base:
            raise NotFound(
                f"the alias {name!r} stands for the base {meant.name!r}, which is no adapter",
                param=param,
                code="adapter_not_found",
                next_action="name an adapter",
            )
        ref = find(session, principal, meant.target)
    if ref is None:
        raise _not_found(session, principal, name, param)
    return ref


def find(session: Session, principal: Principal, name: str, *, shared: bool = False) -> AdapterRef | None:
    """The tenant's own adapter or checkpoint of this id or name; with `shared`, also one that it may only call."""
    told = parse_checkpoint(name)
    if told is None:
        seen = _seen_by(principal, Adapter.tenant_id, Adapter.id, shared)
        adapter = session.scalars(
            select(Adapter).where(or_(Adapter.id == name, Adapter.name == name), seen)
        ).one_or_none()
        return None if adapter is None else AdapterRef.of(adapter)
    found = session.execute(
        _checkpoints()
        .where(_seen_by(principal, Job.tenant_id, Checkpoint.id, shared))
        .where(Checkpoint.id == checkpoint_id(*told))
    ).one_or_none()
    if found is None:
        return None
    ref = AdapterRef.of_checkpoint(*found)
    return ref if name in (ref.id, ref.name) else None


def sole_target(session: Session, principal: Principal, name: str, *, param: str) -> AliasTarget | None:
    """What an alias stands for; None if there is no such alias.

    Raises `InvalidRequest` for an alias of several models: where no request is to be sent to one of them, there is
    nothing to choose by.
    """
    found = session.scalars(
        select(AliasTarget)
        .where(AliasTarget.tenant_id == principal.tenant_id, AliasTarget.alias == name)
        .order_by(AliasTarget.position)
    ).all()
    if len(found) > 1:
        raise InvalidRequest(
            f"the alias {name!r} stands for {len(found)} models: {', '.join(target.name for target in found)}",
            param=param,
            code="alias_of_several",
            next_action="name one of them",
        )
    return found[0] if found else None


def hold(session: Session, principal: Principal, name: str, *, param: str) -> AdapterRef:
    """The same as `refer`, held against deletion until the transaction ends."""
    ref = refer(session, principal, name, param=param)
    table = Checkpoint if ref.is_checkpoint else Adapter
    session.execute(select(table.id).where(table.id == ref.id).with_for_update(read=True))
    # It may have been deleted while we waited for the lock.
    return refer(session, principal, ref.id, param=param)


def gone(session: Session, ids: Collection[str]) -> set[str]:
    """Those of the ids that are of no adapter or checkpoint, whoever's."""
    there = union_all(*(select(table.id).where(table.id.in_(ids)) for table in (Adapter, Checkpoint)))
    return set(ids) - set(session.scalars(there))


def delete(registry: Registry, principal: Principal, name: str) -> str:
    """Deletes an adapter or a checkpoint, row and bytes, and returns its id. What an alias stands for is not meant.

    Raises `NotFound` as `call` does, and for an alias; `Conflict` while something needs it: a live job that begins with
    it, an alias, or, of a checkpoint, its own job.
    """
    try:
        return _delete(registry, principal, name)
    except NotFound as error:
        aliased = select(AliasTarget.target).where(
            AliasTarget.tenant_id == principal.tenant_id, AliasTarget.alias == name
        )
        with registry.reading() as session:
            if session.scalars(aliased.limit(1)).first() is None:
                raise
        raise NotFound(
            f"{name!r} is an alias, not an adapter",
            param=error.param,
            code=error.code,
            next_action=f"delete the alias with DELETE /aliases/{name}, or name the adapter that it stands for",
        ) from error


def _delete(registry: Registry, principal: Principal, name: str) -> str:
    if parse_checkpoint(name) is None:
        return adapters.delete(registry, principal, name).id
    with registry.transaction() as session:
        ref = find(session, principal, name)
        if ref is None:
            raise _not_found(session, principal, name, "adapter_id")
        job = session.scalars(select(Job).where(Job.id == ref.job_id).with_for_update()).one()
        checkpoint = session.scalars(select(Checkpoint).where(Checkpoint.id == ref.id).with_for_update()).one_or_none()
        if not job.is_terminal:
            raise Conflict(
                f"the job {job.id}, which has not ended, needs its checkpoint {name!r}",
                code="checkpoint_in_use",
                next_action=f"wait for {job.id} or cancel it",
            )
        refuse_if_held(session, ref.id, name, code="checkpoint_in_use")
        if checkpoint is not None:
            session.delete(checkpoint)
            audit.record(session, principal, "checkpoint.deleted", "checkpoint", ref.id, sha256=ref.sha256)
    for key in (ref.object_key, checkpoint.object_key if checkpoint else None):
        if key is not None:
            registry.store.delete(key)
    return ref.id


def _aliased(session: Session, principal: Principal, name: str, key: bytes, param: str) -> Target | None:
    """In one query: it is on the way of every request."""
    found = session.execute(
        select(AliasTarget, Adapter, Checkpoint, Job)
        .outerjoin(Adapter, and_(Adapter.id == AliasTarget.target, Adapter.tenant_id == principal.tenant_id))
        .outerjoin(Checkpoint, Checkpoint.id == AliasTarget.target)
        .outerjoin(Job, and_(Job.id == Checkpoint.job_id, Job.tenant_id == principal.tenant_id))
        .where(AliasTarget.tenant_id == principal.tenant_id, AliasTarget.alias == name)
        .order_by(AliasTarget.position)
    ).all()
    if not found:
        return None
    chosen = choose(name, [row[0] for row in found], key)
    _, adapter, checkpoint, job = next(row for row in found if row[0] is chosen)
    if adapter is not None:
        ref = AdapterRef.of(adapter)
    elif job is not None:
        ref = AdapterRef.of_checkpoint(principal.tenant_name, job, checkpoint)
    elif chosen.is_base:
        return Target(chosen.target, None, name)
    else:
        raise NotFound(
            f"the alias {name!r} stands for {chosen.name!r}, which is gone",
            param=param,
            code="alias_target_gone",
            next_action=f"move the alias {name!r} to another model, or roll it back",
        )
    return Target(ref.base, ref, name)


def _checkpoints() -> Select[str, Job, Checkpoint]:
    return (
        select(Tenant.name, Job, Checkpoint)
        .join(Job, Job.tenant_id == Tenant.id)
        .join(Checkpoint, Checkpoint.job_id == Job.id)
    )


def _seen_by(
    principal: Principal, owner: InstrumentedAttribute[str], id: InstrumentedAttribute[str], shared: bool
) -> ColumnElement[bool]:
    own = owner == principal.tenant_id
    if not shared:
        return own
    may_be_called = select(Permission.id).where(Permission.target == id, Permission.project_id == principal.tenant_id)
    return or_(own, may_be_called.exists())


def _not_found(session: Session, principal: Principal, name: str, param: str) -> NotFound:
    told = parse_checkpoint(name)
    if told is None:
        return adapters.not_found(name, param)
    of_job = Job.id.endswith(told[0], autoescape=True)
    kept = session.execute(
        _checkpoints().where(Job.tenant_id == principal.tenant_id, of_job).order_by(Checkpoint.step)
    ).all()
    steps = ", ".join(str(checkpoint.step) for _, _, checkpoint in kept)
    names = [AdapterRef.of_checkpoint(*row).name for row in kept]
    return NotFound(
        f"no checkpoint {name!r}" + (f"; its job has kept those of step {steps}" if kept else ""),
        param=param,
        code="checkpoint_not_found",
        next_action=f"call {names[-1]!r}" if names else "list the job's checkpoints; after a week they are gone",
    )
