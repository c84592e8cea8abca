"""What a job begins with, where that is not the bare base: an adapter, or a checkpoint of another job."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import workers
from registry.errors import InvalidRequest
from registry.jobs.types import JobRequest, StartRef
from registry.models import Adapter, Checkpoint, Job
from registry.references import AdapterRef, refer
from registry.settings import Settings
from registry.tenants import Principal

PARAM = "osora.from_adapter"


def hold(session: Session, principal: Principal, request: JobRequest, settings: Settings) -> AdapterRef | None:
    """What the request names to begin with, held against deletion until the transaction ends; None if it names none.

    Raises:
        NotFound: the tenant has no such adapter or checkpoint.
        InvalidRequest: it is of another base, basis or rank than the job.
    """
    name = request.from_adapter
    if name is None:
        return None
    param = PARAM if request.base is not None else "model"
    ref = refer(session, principal, name, param=param)
    table = Checkpoint if ref.id.startswith("ftckpt_") else Adapter
    session.execute(select(table.id).where(table.id == ref.id).with_for_update(read=True))
    # It may have been deleted while we waited for the lock.
    ref = refer(session, principal, name, param=param)
    if request.base not in (None, ref.base):
        raise InvalidRequest(
            f"{name!r} is an adapter of the base {ref.base!r}, and the job is to train on {request.base!r}",
            param=param,
            next_action=f"train on {ref.base!r}, or leave out `{PARAM}`",
        )
    rank = request.osora.get("rank", ref.rank)
    if rank != ref.rank:
        raise InvalidRequest(
            f"{name!r} has rank {ref.rank}, and a job keeps the rank of what it begins with: {rank} is another",
            param="osora.rank",
            next_action=f"use {ref.rank}, or leave out `osora.rank`",
        )
    _check_identity(session, ref, param, settings)
    return ref


def _check_identity(session: Session, ref: AdapterRef, param: str, settings: Settings) -> None:
    """Against what the live workers hold. If none is there, the one that comes says so."""
    mine = [ref.base_fingerprint, ref.basis_fingerprint]
    held = [
        worker.identities[ref.base]
        for worker in workers.live(session, ref.base, settings.lease_seconds)
        if ref.base in worker.identities
    ]
    if held and mine not in held:
        base, basis = held[0]
        raise InvalidRequest(
            f"{ref.name!r} was trained when {ref.base!r} had other weights: base {mine[0]} and basis {mine[1]}, which "
            f"now are {base} and {basis}",
            param=param,
            code="identity_mismatch",
            next_action="train anew from the base, or offer the base that it was made on",
        )


def find(session: Session, job: Job) -> StartRef | None:
    """Where what a job begins with is stored; None if it begins with the bare base, or if that is gone."""
    if job.from_adapter_id is None:
        return None
    found: Any
    if job.from_adapter_id.startswith("ftckpt_"):
        found = session.execute(
            select(Checkpoint.adapter_key, Checkpoint.adapter_sha256).where(Checkpoint.id == job.from_adapter_id)
        ).one_or_none()
    else:
        found = session.execute(
            select(Adapter.object_key, Adapter.sha256).where(Adapter.id == job.from_adapter_id)
        ).one_or_none()
    return None if found is None else StartRef(*found)
