"""Limits, as clients see and set them."""

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import RequestModel
from registry.limits.values import Limits
from registry.models import JobPriority

Unlimited = Literal["unlimited"]
_Amount = Annotated[int, Field(ge=0, le=2**53)] | Unlimited
_Budget = Annotated[_Amount | None, Field(description="By the calendar, in UTC.")]


class _Limits(RequestModel):
    requests_per_minute: _Amount | None = None
    tokens_per_minute: Annotated[_Amount | None, Field(description="Read and written by generations.")] = None
    concurrent_generations: _Amount | None = None
    concurrent_uploads: _Amount | None = None
    tokens_per_month: _Budget = None
    priority: Annotated[JobPriority | None, Field(description="The highest that a job may ask for.")] = None

    def values(self) -> dict[str, Any]:
        """Those that are set, by name; None is no limit."""
        return {
            name: None if value == "unlimited" else value for name, value in self.model_dump(exclude_none=True).items()
        }


class KeyLimits(_Limits):
    """What a key may take, beside what its tenant may. What is left out has no limit of its own."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"requests_per_minute": 60, "priority": "normal"}]})


class TenantLimits(_Limits):
    """What a tenant may take. What is left out is as the installation has it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"requests_per_minute": 600, "stored_bytes": "unlimited", "priority": "high"}]}
    )

    concurrent_jobs: Annotated[_Amount | None, Field(description="That run; those beyond wait.")] = None
    queued_jobs: Annotated[_Amount | None, Field(description="That wait or are paused.")] = None
    stored_bytes: _Amount | None = None
    compute_seconds_per_day: _Budget = None
    compute_seconds_per_month: _Budget = None


class LimitsOut(BaseModel):
    """The limits of a tenant or a key."""

    object: Literal["limits"] = "limits"
    owner: str
    """The tenant's id, or the key's."""
    limits: dict[str, int | str]
    """Those that hold, by name; `unlimited` where there is none."""
    overrides: dict[str, int | str]
    """Those of them that were set for this tenant or key."""
    used: dict[str, int]
    """What is taken of those that are not of a minute."""

    @classmethod
    def of(cls, owner: str, limits: Limits, overrides: dict[str, Any], used: dict[str, int]) -> Self:
        """The limits as a client sees them."""
        return cls(owner=owner, limits=_shown(asdict(limits)), overrides=_shown(overrides), used=used)


def _shown(values: dict[str, Any]) -> dict[str, int | str]:
    return {name: "unlimited" if value is None else value for name, value in values.items()}
