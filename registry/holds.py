"""What keeps an adapter or a checkpoint from being deleted: a live job that begins with it, an alias that names it."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import CompoundSelect, select, union
from sqlalchemy.orm import Session

from registry.errors import Conflict
from registry.models import TERMINAL, Job
from registry.names.tables import AliasTarget


def held() -> CompoundSelect[Any]:
    """The ids of all that is held, as a query; names of bases may be among them."""
    begun_with = select(Job.from_adapter_id).where(Job.status.not_in(TERMINAL), Job.from_adapter_id.is_not(None))
    return union(begun_with, select(AliasTarget.target))


def held_by(session: Session, tenant_ids: Collection[str]) -> set[str]:
    """The ids of all that these tenants' jobs and aliases hold; names of bases may be among them."""
    begun_with = select(Job.from_adapter_id).where(
        Job.tenant_id.in_(tenant_ids), Job.status.not_in(TERMINAL), Job.from_adapter_id.is_not(None)
    )
    named = select(AliasTarget.target).where(AliasTarget.tenant_id.in_(tenant_ids))
    return set(session.scalars(union(begun_with, named)))


def unheld(session: Session, ids: Sequence[str]) -> Sequence[str]:
    """Those of these adapters and checkpoints that nothing holds.

    Ask once their rows are locked: whoever wants to hold one (`registry.references.hold`) has then either been here
    before, or waits.
    """
    users = select(Job.from_adapter_id).where(Job.status.not_in(TERMINAL), Job.from_adapter_id.in_(ids))
    in_use = set(session.scalars(users.union(select(AliasTarget.target).where(AliasTarget.target.in_(ids)))))
    return [key for key in ids if key not in in_use]


def refuse_if_held(session: Session, id: str, shown: str, *, code: str) -> None:
    """Raises `Conflict`, which names the job or the alias, if something holds what a client calls `shown`."""
    user = session.scalar(
        select(Job).where(Job.status.not_in(TERMINAL), Job.from_adapter_id == id).order_by(Job.id).limit(1)
    )
    if user is not None:
        raise in_use(user, f"begins with {shown!r}", code=code)
    alias = session.scalar(
        select(AliasTarget.alias).where(AliasTarget.target == id).order_by(AliasTarget.alias).limit(1)
    )
    if alias is not None:
        raise Conflict(
            f"the alias {alias!r} names {shown!r}",
            code=code,
            next_action=f"move or delete the alias {alias!r} first",
        )


def in_use(job: Job, how: str, *, code: str) -> Conflict:
    """The error for what a live job uses; a probe is none that a tenant knows by its id."""
    if job.probe_steps is not None:
        return Conflict(f"a probe {how}", code=code, next_action="try again when it is over, in two minutes at most")
    return Conflict(
        f"the job {job.id}, which has not ended, {how}", code=code, next_action=f"wait for {job.id} or cancel it"
    )
