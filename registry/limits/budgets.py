"""Budgets: what a tenant may use up in a day or a calendar month. Once it is spent, nothing new begins."""

from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.db import now_seconds
from registry.errors import QuotaExceeded
from registry.limits.values import LimitName, Owner
from registry.usage import Spent, spent

_NEXT = "wait for the next {period} (UTC), or ask whoever runs the service for more"


def check_training(session: Session, owner: Owner) -> None:
    """Raises `QuotaExceeded` where the tenant's training of the day or the month is used up."""
    error = _training_error(session, owner)
    if error is not None:
        raise error


def tokens_of_month(session: Session, owner: Owner) -> int:
    """What the generations of the tenant, or of the key, have used since the month began (UTC)."""
    return _spent(session, owner, "month").tokens


def used(session: Session, owner: Owner) -> dict[str, int]:
    """What is spent of each budget, by its name."""
    day, month = _spent(session, owner, "day"), _spent(session, owner, "month")
    return {
        "compute_seconds_per_day": round(day.compute_seconds),
        "compute_seconds_per_month": round(month.compute_seconds),
        "tokens_per_month": month.tokens,
    }


def check_generation(owner: Owner, used: int) -> None:
    """Raises `QuotaExceeded` where the tokens of the month are used up."""
    limit = owner.limits.tokens_per_month
    if limit is not None and used >= limit:
        raise _exceeded(owner, "tokens_per_month", used, "month")


def is_training_spent(session: Session, owner: Owner) -> bool:
    """Whether the tenant has used up its training of the day or the month."""
    return _training_error(session, owner) is not None


def _training_error(session: Session, owner: Owner) -> QuotaExceeded | None:
    limits = owner.limits
    if limits.compute_seconds_per_day is not None:
        used = _spent(session, owner, "day").compute_seconds
        if used >= limits.compute_seconds_per_day:
            return _exceeded(owner, "compute_seconds_per_day", used, "day")
    if limits.compute_seconds_per_month is not None:
        used = _spent(session, owner, "month").compute_seconds
        if used >= limits.compute_seconds_per_month:
            return _exceeded(owner, "compute_seconds_per_month", used, "month")
    return None


def _spent(session: Session, owner: Owner, period: Literal["day", "month"]) -> Spent:
    time = int(session.execute(select(now_seconds())).scalar_one())
    since = time if period == "day" else _month_of(time)
    return spent(session, owner.tenant_id, since=since, key_id=owner.id if owner.kind == "key" else None)


def _month_of(time: int) -> int:
    """The first second of its month in UTC."""
    begins = datetime.fromtimestamp(time, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(begins.timestamp())


def _exceeded(owner: Owner, name: LimitName, used: float, period: str) -> QuotaExceeded:
    return owner.over_quota(name, used, next_action=_NEXT.format(period=period))
