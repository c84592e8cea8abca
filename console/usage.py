"""What was used, summed up for people."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from console.words import duration, human_bytes
from osora.schemas import UsageRow

COUNTS = ("prompt_tokens", "completion_tokens", "trained_tokens", "requests", "steps", "compute_seconds")
_NEAR = 0.8
_LIMITS = {
    "concurrent_jobs": "Jobs that run",
    "queued_jobs": "Jobs that wait",
    "stored_bytes": "Stored bytes",
    "concurrent_generations": "Generations at once",
    "concurrent_uploads": "Uploads at once",
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
    "tokens_per_month": "Tokens this month",
    "compute_seconds_per_day": "Compute today",
    "compute_seconds_per_month": "Compute this month",
    "priority": "Highest priority of a job",
}


@dataclass(frozen=True)
class Days:
    """Sums by day: each list has an item for each of `days`, the days without any use too."""

    days: Sequence[str]
    sums: Mapping[str, Sequence[float]]

    def total(self, count: str) -> float:
        return sum(self.sums[count])

    @property
    def is_empty(self) -> bool:
        return not any(self.total(count) for count in COUNTS)


def by_day(rows: Iterable[UsageRow], until: date, days: int) -> Days:
    """Of rows that are kept apart by day, the `days` up to `until`."""
    names = [(until - timedelta(days=back)).isoformat() for back in reversed(range(days))]
    places = {name: place for place, name in enumerate(names)}
    sums: dict[str, list[float]] = {count: [0] * days for count in COUNTS}
    for row in rows:
        place = places.get(row.get("day") or "")
        if place is not None:
            for count in COUNTS:
                sums[count][place] += _of(row, count)
    return Days(names, sums)


def by_key(rows: Iterable[UsageRow]) -> list[dict[str, Any]]:
    """A row for each key, whoever used the most tokens first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key, tenant = row.get("key_id") or "", row.get("tenant") or ""
        name = row.get("key_name") or key or "no key"
        told = found.setdefault((tenant, key), {"id": f"{tenant} {key}", "key": name, "tenant": tenant})
        for count in COUNTS:
            told[count] = told.get(count, 0) + _of(row, count)
    return sorted(found.values(), key=_tokens, reverse=True)


@dataclass(frozen=True)
class Quota:
    """A limit, and how much of it is taken (None: that is counted by the minute, and not told)."""

    name: str
    label: str
    used: int | None
    limit: int | None
    text: str

    @property
    def share(self) -> float | None:
        """Of the limit, 0 to 1; None where there is none, or nothing is counted."""
        if self.used is None or self.limit is None:
            return None
        return 1.0 if not self.limit else min(self.used / self.limit, 1.0)

    @property
    def level(self) -> str:
        """`good`, `warn` or `bad`."""
        share = self.share or 0.0
        return "bad" if share >= 1 else "warn" if share >= _NEAR else "good"


def quotas(limits: Mapping[str, Any]) -> list[Quota]:
    """Those of `GET /tenants/{tenant}/limits`: what is counted first, then what is set, then what is unlimited."""
    found = [
        _quota(name, limits.get("limits", {}).get(name), limits.get("used", {}).get(name))
        for name in {**_LIMITS, **limits.get("limits", {})}
        if name in limits.get("limits", {})
    ]
    return sorted(found, key=lambda quota: (quota.share is None, quota.limit is None, quota.used is None))


def _quota(name: str, limit: int | str | None, used: int | None) -> Quota:
    label = _LIMITS.get(name, name.replace("_", " ").capitalize())
    bound = limit if isinstance(limit, int) else None
    if limit is not None and bound is None and limit != "unlimited":
        return Quota(name, label, None, None, str(limit))
    most = "no limit" if bound is None else _written(name, bound)
    if used is None:
        return Quota(name, label, None, bound, most)
    told = _written(name, used)
    return Quota(name, label, used, bound, f"{told}, {most}" if bound is None else f"{told} of {most}")


def _written(name: str, amount: int) -> str:
    if name.endswith("_bytes"):
        return human_bytes(amount)
    return duration(amount) if name.startswith("compute_seconds") else f"{amount:,}"


def short(number: float) -> str:
    """`1,204`, `38.2 k`, `1.20 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{scaled:.1f} {unit}" if unit == "k" else f"{scaled:.2f} {unit}"
    return f"{number:,.0f}"


def _of(row: UsageRow, count: str) -> float:
    value = row.get(count)
    return float(value) if isinstance(value, int | float) else 0.0


def _tokens(row: Mapping[str, Any]) -> float:
    return float(row["prompt_tokens"] + row["completion_tokens"] + row["trained_tokens"])
