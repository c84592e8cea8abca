"""Adapters that no job has trained here: a tenant brings them, and they are published like any other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from sqlalchemy.orm import Session

from registry import audit, webhooks
from registry.adapter_archive import repacked
from registry.context import Registry
from registry.disks import refuse_if_short
from registry.errors import InvalidRequest, NotFound, OsoraError
from registry.ids import model_name, new_id
from registry.limits import quotas
from registry.models import Adapter, AdapterType
from registry.tenants import Principal

T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """An adapter whose bytes are stored and which nobody can call yet."""

    id: str
    base: str
    object_key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Facts:
    """What an inference server has found an adapter to be."""

    type: AdapterType
    rank: int
    parameters: int
    target_modules: Sequence[str]
    base_fingerprint: str
    basis_fingerprint: str | None
    warnings: Sequence[str]
    mix: int = 0


def base_of(known: Sequence[str], name: str | None) -> str:
    """Of the bases on offer the one that is meant; without a name, the only one. Raises `InvalidRequest` and
    `NotFound`."""
    if name is None and len(known) > 1:
        raise InvalidRequest(
            f"there are several bases here: {', '.join(known)}", param="base", next_action="name the adapter's own"
        )
    if name is not None and name not in known:
        raise NotFound(
            f"no base {name!r}", param="base", code="base_not_found", next_action=f"choose from {', '.join(known)}"
        )
    return name or known[0]


def store(registry: Registry, principal: Principal, base: str, stream: BinaryIO) -> Draft:
    """Checks an archive as far as that goes without its tensors, and stores it.

    Raises what `adapter_archive.repacked` raises, and `StorageFull`; nothing is stored then.
    """
    refuse_if_short(registry.settings)
    adapter_id = new_id("adp-")
    key = f"adapters/{principal.tenant_id}/{adapter_id}.zip"
    with repacked(stream, registry.settings.max_upload_bytes, registry.scratch.folder) as packed:
        registry.store.put(key, packed.path)
        return Draft(adapter_id, base, key, packed.sha256, packed.bytes)


def discard(registry: Registry, draft: Draft) -> None:
    """Forgets a draft that is not to be published."""
    registry.store.delete(draft.object_key)


def publish(
    registry: Registry,
    principal: Principal,
    draft: Draft,
    facts: Facts,
    suffix: str | None,
    record: Callable[[Session, Adapter], T],
) -> T:
    """Writes the row: from now on the adapter can be called.

    Returns what `record` makes of it, which happens in the same transaction. Raises `QuotaExceeded` where the tenant
    would store more than it may; the draft is gone then.
    """
    adapter = Adapter(
        id=draft.id,
        tenant_id=principal.tenant_id,
        job_id=None,
        name=model_name(draft.base, principal.tenant_name, suffix, draft.id),
        type=facts.type,
        step=None,
        base=draft.base,
        base_fingerprint=facts.base_fingerprint,
        basis_fingerprint=facts.basis_fingerprint,
        rank=facts.rank,
        mix=facts.mix,
        parameters=facts.parameters,
        target_modules=list(facts.target_modules),
        object_key=draft.object_key,
        sha256=draft.sha256,
        bytes=draft.bytes,
    )
    # If this fails, its commit may have happened all the same: the object stays, and is an orphan if it has no row.
    try:
        with registry.transaction() as session:
            session.add(adapter)
            session.flush()
            session.refresh(adapter)
            data = {"id": adapter.id, "name": adapter.name, "job_id": None}
            webhooks.record(session, principal.tenant_id, "adapter.published", data)
            audit.record(
                session, principal, "adapter.imported", "adapter", adapter.id, type=adapter.type, sha256=adapter.sha256
            )
            answer = record(session, adapter)
            quotas.check_stored(session, principal.tenant_id)
            return answer
    except OsoraError:  # one of ours comes before the commit
        discard(registry, draft)
        raise
