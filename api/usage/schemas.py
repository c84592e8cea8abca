"""Usage, as clients see it."""

import re
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from api.schemas import AtMost, Name, QueryModel
from registry.usage import GROUPS, Group, Kind, Question, Row, Stored


def _is_written_out(value: Any) -> Any:
    # Pydantic takes a number as well, for seconds since 1970.
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise PydanticCustomError("no_day", "should be a day such as 2026-11-27")
    return value


_Day = Annotated[date, BeforeValidator(_is_written_out)]


class WhoseUsage(QueryModel):
    """Whose usage."""

    tenant: Annotated[
        Name | None, Field(description="Only this tenant's. Another than your own takes the scope `operator`.")
    ] = None


class UsageQuery(WhoseUsage):
    """Which days, and by what the sums are kept apart."""

    since: Annotated[_Day | None, Field(description="The first day, in UTC; default: 29 days before the last one.")] = (
        None
    )
    until: Annotated[_Day | None, Field(description="The last day, in UTC; default: today.")] = None
    group_by: Annotated[
        list[Group], AtMost(len(GROUPS)), Field(description="What the sums are kept apart by; may be repeated.")
    ] = ["day"]  # noqa: RUF012
    format: Annotated[
        Literal["json", "csv"] | None,
        Field(description="`csv`: all rows as a table. Default: what the header `Accept` asks for, or JSON."),
    ] = None
    after: Annotated[str | None, Field(max_length=4000, description="Id of the last row of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Rows on a page.")] = 100

    def question(self) -> Question:
        """What the registry is asked. Raises `InvalidRequest` for days in the wrong order."""
        return Question.of(self.since, self.until, self.group_by, self.tenant)


class UsageOut(BaseModel):
    """One sum. What it is not kept apart by is null; so is the `adapter_id` of the bare base, and of training."""

    id: str
    object: Literal["usage"] = "usage"
    day: date | None
    """In UTC."""
    tenant: str | None
    key_id: str | None
    key_name: str | None
    base: str | None
    adapter_id: str | None
    kind: Kind | None
    """`training`, `probe`, or the door that a generation came through."""
    requests: int
    """Generations."""
    prompt_tokens: int
    completion_tokens: int
    trained_tokens: int
    steps: int
    """Of training. As tokens, one that is repeated after a fault of ours counts once."""
    compute_seconds: float
    """Of training, what is repeated included."""

    @classmethod
    def of(cls, row: Row) -> Self:
        """The row as a client sees it."""
        flat = row.flat()
        return cls(**{**flat, "compute_seconds": round(flat["compute_seconds"], 3)})


class StoredOut(BaseModel):
    """Bytes that are stored now."""

    object: Literal["usage.storage"] = "usage.storage"
    files: int
    uploads: int
    """Parts of files that are not complete yet."""
    adapters: int
    checkpoints: int
    total: int

    @classmethod
    def of(cls, stored: Stored) -> Self:
        """With their sum."""
        parts = vars(stored)
        return cls(**parts, total=sum(parts.values()))
