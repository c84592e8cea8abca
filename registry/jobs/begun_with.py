"""What a job begins with, where that is not the bare base: an adapter, or a checkpoint of another job."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import references, workers
from registry.errors import InvalidRequest
from registry.jobs.types import JobRequest, StartRef
from registry.models import Adapter, Checkpoint, Job
from registry.references import AdapterRef, sole_target
from registry.settings import Settings
from registry.tenants import Principal

PARAM = "osora.from_adapter"


def without_aliases(session: Session, principal: Principal, request: JobRequest, bases: Collection[str]) -> JobRequest:
    """The request with what its aliases stand for now: where they move to later is nothing to the job.

    Raises `InvalidRequest` for an alias of several models, and for two names of what to begin with.
    """
    base, name = request.base, request.from_adapter
    if base is not None and base not in bases:
        meant = sole_target(session, principal, base, param="model")
        if meant is not None and meant.is_base:
            base = meant.name
        elif meant is not None and name is not None:
            raise InvalidRequest(
                f"`model` is an alias of {meant.name!r} to begin with, and `{PARAM}` names {name!r}",
                param=PARAM,
                code="invalid_value",
                next_action=f"leave out `{PARAM}`, or name a base as the model",
            )
        elif meant is not None:
            base, name = None, meant.name
    elif name is not None and references.find(session, principal, name) is None:
        meant = sole_target(session, principal, name, param="model" if base is None else PARAM)
        if meant is not None and meant.is_base and base is None:
            base, name = meant.name, None
        elif meant is not None and not meant.is_base:
            name = meant.name
    return replace(request, base=base, from_adapter=name)


def hold(session: Session, principal: Principal, request: JobRequest, settings: Settings) -> AdapterRef | None:
    """What the request names to begin with, held against deletion until the transaction ends; None if it names none.

    Raises:
        NotFound: the tenant has no such adapter or checkpoint.
        InvalidRequest: it is a plain LoRA, or of another base, basis or rank than the job.
    """
    name = request.from_adapter
    if name is None:
        return None
    param = PARAM if request.base is not None else "model"
    ref = references.hold(session, principal, name, param=param)
    if request.base not in (None, ref.base):
        raise InvalidRequest(
            f"{name!r} is an adapter of the base {ref.base!r}, and the job is to train on {request.base!r}",
            param=param,
            next_action=f"train on {ref.base!r}, or leave out `{PARAM}`",
        )
    if ref.type == "lora":
        raise InvalidRequest(
            f"{name!r} is a plain LoRA, which is served as it is; a job can begin with an OSoRA adapter alone",
            param=param,
            code="not_trainable",
            next_action="train from the base, or name an OSoRA adapter",
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
    held = [
        worker.identities[ref.base]
        for worker in workers.live(session, ref.base, settings.lease_seconds)
        if ref.base in worker.identities
    ]
    if held and not any(base == ref.base_fingerprint and ref.basis_fingerprint in bases for base, *bases in held):
        base, basis, *_ = held[0]
        raise InvalidRequest(
            f"{ref.name!r} was trained when {ref.base!r} had other weights: base {ref.base_fingerprint} and basis "
            f"{ref.basis_fingerprint}, which now are {base} and {basis}",
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
