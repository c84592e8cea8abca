"""Taking over what inference servers have recorded: each record is in the sums once, however often it comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from registry.db import now
from registry.models import Tenant
from registry.usage import days
from registry.usage.tables import Kind, UsageSegment

# Whoever still holds records of a segment that is gone has long given up by then.
_FORGET_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Generated:
    """What one generation computed. `number` is its place in its segment, from 1."""

    number: int
    tenant_id: str
    key_id: str
    base: str
    adapter_id: str
    kind: Kind
    prompt_tokens: int
    completion_tokens: int
    ended_at: int


def take_over(session: Session, segment: str, records: Sequence[Generated], upto: int) -> int:
    """Adds to the sums what is not in them yet, and notes that the segment is done up to `upto`; how many were new.

    Records come in the order of their numbers. Those of tenants that are no more are left out.
    """
    session.execute(
        days.insert(session, UsageSegment.__table__)  # type: ignore[arg-type]
        .values(id=segment, position=0)
        .on_conflict_do_nothing()
    )
    row = session.scalars(
        select(UsageSegment)
        .where(UsageSegment.id == segment)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    fresh = [record for record in records if record.number > row.position]
    row.position = max(row.position, upto)
    # Held against their deletion until this commits.
    tenants = select(Tenant.id).where(Tenant.id.in_({record.tenant_id for record in fresh}))
    known = set(session.scalars(tenants.order_by(Tenant.id).with_for_update(read=True, key_share=True)))
    clock = days.clock(session)
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in fresh:
        if record.tenant_id in known:
            _count(sums, record, days.day_of(min(record.ended_at, clock)))
    days.add(session, sums.values())
    return len(fresh)


def forget(session: Session, segments: Sequence[str]) -> None:
    """Segments that are gone for good need not be remembered for longer than somebody may hold records of them."""
    session.execute(update(UsageSegment).where(UsageSegment.id.in_(segments)).values(gone_at=now()))
    session.execute(delete(UsageSegment).where(UsageSegment.gone_at < now() - _FORGET_SECONDS))


def _count(sums: dict[tuple[Any, ...], dict[str, Any]], record: Generated, day: int) -> None:
    key = {
        "tenant_id": record.tenant_id,
        "day": day,
        "key_id": record.key_id,
        "base": record.base,
        "adapter_id": record.adapter_id,
        "kind": record.kind,
    }
    row = sums.setdefault(tuple(key.values()), {**key, "requests": 0, "prompt_tokens": 0, "completion_tokens": 0})
    row["requests"] += 1
    row["prompt_tokens"] += record.prompt_tokens
    row["completion_tokens"] += record.completion_tokens
