"""Which limits there are, and what is said of one that is met."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from registry.errors import QuotaExceeded, RateLimited, Standing
from registry.models import JobPriority
from registry.settings import Settings

LimitName = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_generations",
    "concurrent_uploads",
    "concurrent_jobs",
    "queued_jobs",
    "stored_bytes",
    "compute_seconds_per_day",
    "compute_seconds_per_month",
    "tokens_per_month",
]
_OF = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "concurrent_generations": "generations at once",
    "concurrent_uploads": "uploads at once",
    "concurrent_jobs": "running jobs",
    "queued_jobs": "jobs that wait or are paused",
    "stored_bytes": "stored bytes",
    "compute_seconds_per_day": "seconds of training a day",
    "compute_seconds_per_month": "seconds of training a month",
    "tokens_per_month": "generated and read tokens a month",
}


@dataclass(frozen=True)
class Limits:
    """What somebody may take; None is no limit. The settings `OSORA_LIMIT_…` have the same names."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_generations: int | None = None
    concurrent_uploads: int | None = None
    concurrent_jobs: int | None = None
    queued_jobs: int | None = None
    stored_bytes: int | None = None
    compute_seconds_per_day: int | None = None
    compute_seconds_per_month: int | None = None
    tokens_per_month: int | None = None
    priority: JobPriority = "high"
    """The highest that a job may have."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the installation."""
        return cls(**{field.name: getattr(settings, f"limit_{field.name}") for field in fields(cls)})

    def but(self, values: Mapping[str, Any]) -> Self:
        """These with others in their place, as far as those are named."""
        return replace(self, **values)


@dataclass(frozen=True)
class Owner:
    """Whose limits they are."""

    kind: Literal["tenant", "key"]
    id: str
    tenant_id: str
    limits: Limits

    def exceeded(
        self,
        name: LimitName,
        *,
        when: str,
        retry_after: float | None,
        next_action: str,
        standing: Standing | None = None,
    ) -> RateLimited:
        """What is said when a rate or a place is not to be had: whose, which, how much, and `when` it is again.

        `retry_after`: seconds; None: waiting is of no use.
        """
        return RateLimited(
            f"{self._may(name)}: {when}", code=name, next_action=next_action, retry_after=retry_after, standing=standing
        )

    def over_quota(
        self, name: LimitName, used: float, *, next_action: str, more: int = 0, code: str | None = None
    ) -> QuotaExceeded:
        """What is said when an amount is used up, or would be with so much `more`."""
        wanted = f" and {more} more would be" if more else ""
        return QuotaExceeded(f"{self._may(name)}: {used:.0f} are used{wanted}", code=code, next_action=next_action)

    def _may(self, name: LimitName) -> str:
        return f"the {self.kind} {self.id} may have {getattr(self.limits, name)} {_OF[name]} ({name})"
