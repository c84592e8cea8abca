"""What a tenant has used, in one sum: what its budgets are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.usage.days import day_of
from registry.usage.tables import UsageDay


@dataclass(frozen=True)
class Spent:
    """Sums over some days. `compute_seconds` and `trained_tokens` are of training, probes included."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    trained_tokens: int = 0
    steps: int = 0
    compute_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Read and written by generations."""
        return self.prompt_tokens + self.completion_tokens


COUNTERS = tuple(getattr(UsageDay, field.name) for field in fields(Spent))


def spent(session: Session, tenant_id: str, *, since: int, key_id: str | None = None) -> Spent:
    """What a tenant, or one key of it, has used from the UTC day of `since` (unix seconds) until now.

    Generations are in it about a second after their end; what still runs is not.
    """
    statement = select(*(func.coalesce(func.sum(counter), 0) for counter in COUNTERS))
    statement = statement.where(UsageDay.tenant_id == tenant_id, UsageDay.day >= day_of(since))
    if key_id is not None:
        statement = statement.where(UsageDay.key_id == key_id)
    return spent_of(session.execute(statement).one())


def spent_of(sums: Sequence[Any]) -> Spent:
    """The sums of `COUNTERS`, which PostgreSQL gives as decimals."""
    requests, read, written, trained, steps, seconds = sums
    return Spent(int(requests), int(read), int(written), int(trained), int(steps), float(seconds))
