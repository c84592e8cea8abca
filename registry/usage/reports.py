"""The sums as tenants and operators look at them."""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, cast, get_args

from sqlalchemy import ColumnElement, func, literal, null, select, tuple_
from sqlalchemy.orm import Session

from registry.context import Registry
from registry.errors import InvalidRequest
from registry.models import ApiKey, Tenant
from registry.paging import Page
from registry.tenants import Principal
from registry.usage.tables import Kind, UsageDay
from registry.usage.totals import COUNTERS, Spent, spent_of

Group = Literal["day", "tenant", "key", "model", "kind"]
GROUPS: tuple[Group, ...] = get_args(Group)
DEFAULT_DAYS = 30
_EPOCH = date(1970, 1, 1)
_COLUMNS: dict[Group, tuple[Any, ...]] = {
    "day": (UsageDay.day,),
    "tenant": (Tenant.name,),
    "key": (UsageDay.key_id,),
    "model": (UsageDay.base, UsageDay.adapter_id),
    "kind": (UsageDay.kind,),
}
_PAGE = 1000


@dataclass(frozen=True)
class Question:
    """Which days, both included, of whom, and by what the sums are kept apart.

    Raises `InvalidRequest` for days in the wrong order.
    """

    since: date
    until: date
    group_by: tuple[Group, ...] = ("day",)
    tenant: str | None = None

    @classmethod
    def of(cls, since: date | None, until: date | None, group_by: Sequence[Group], tenant: str | None) -> "Question":
        """With what was left open: until today (in UTC), and so that it is a month."""
        last = until or datetime.now(UTC).date()
        try:
            first = since or last - timedelta(days=DEFAULT_DAYS - 1)
        except OverflowError:
            first = last
        return cls(first, last, tuple(group for group in GROUPS if group in group_by), tenant)

    def __post_init__(self) -> None:
        if self.since > self.until:
            raise InvalidRequest(
                f"since ({self.since}) is after until ({self.until})",
                param="since",
                next_action="both are days in UTC, and both are included",
            )


@dataclass(frozen=True)
class Row:
    """One sum. What it is not kept apart by is None; `adapter_id` is None of the bare base and of training too."""

    id: str
    day: date | None
    tenant: str | None
    key_id: str | None
    key_name: str | None
    base: str | None
    adapter_id: str | None
    kind: Kind | None
    spent: Spent

    def flat(self) -> dict[str, Any]:
        """All of it by name."""
        named = {name: value for name, value in vars(self).items() if name != "spent"}
        return {**named, **asdict(self.spent)}


def report(session: Session, principal: Principal, question: Question, *, after: str | None, limit: int) -> Page[Row]:
    """Sums in the order of what they are kept apart by, the oldest day first.

    An operator sees every tenant's, or those of the one that is named; anybody else those of its own.

    Raises:
        Forbidden: another tenant was named by somebody who is no operator.
        InvalidRequest: `after` is no row of such a question.
    """
    if question.tenant not in (None, principal.tenant_name):
        principal.require("operator")
    keys: list[Any] = [column for group in question.group_by for column in _COLUMNS[group]]
    key_name = func.max(ApiKey.name) if "key" in question.group_by else null()
    sums = (func.coalesce(func.sum(counter), 0) for counter in COUNTERS)
    statement = (
        select(*keys, key_name, *sums)
        .join(Tenant, Tenant.id == UsageDay.tenant_id)
        .outerjoin(ApiKey, ApiKey.id == UsageDay.key_id)
        .where(UsageDay.day.between(_seconds(question.since), _seconds(question.until)))
    )
    if not principal.has("operator"):
        statement = statement.where(UsageDay.tenant_id == principal.tenant_id)
    elif question.tenant is not None:
        statement = statement.where(Tenant.name == question.tenant)
    if after is not None:
        position: ColumnElement[Any] = tuple_(*keys)
        bound = [literal(value, column.type) for value, column in zip(_values(after, keys), keys, strict=True)]
        statement = statement.where(position > tuple_(*bound))
    found = session.execute(statement.group_by(*keys).order_by(*keys).limit(limit + 1)).all()
    rows = [_row(question.group_by, tuple(one)) for one in found]
    return Page(data=rows[:limit], has_more=len(rows) > limit)


def every(registry: Registry, principal: Principal, question: Question) -> Iterator[Row]:
    """All rows, however many, without a transaction that is open for as long as somebody reads them."""
    after: str | None = None
    while True:
        with registry.reading() as session:
            page = report(session, principal, question, after=after, limit=_PAGE)
        yield from page.data
        if not page.has_more:
            return
        after = page.data[-1].id


def _seconds(day: date) -> int:
    return (day - _EPOCH).days * 24 * 3600


def _row(group_by: Sequence[Group], values: tuple[Any, ...]) -> Row:
    count = sum(len(_COLUMNS[group]) for group in group_by)
    keys, key_name, sums = values[:count], values[count], values[count + 1 :]
    named = dict(zip((column.key for group in group_by for column in _COLUMNS[group]), keys, strict=True))
    day = named.get("day")
    return Row(
        id=base64.urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("="),
        day=None if day is None else _EPOCH + timedelta(seconds=day),
        tenant=named.get("name"),
        key_id=named.get("key_id") or None,
        key_name=key_name,
        base=named.get("base"),
        adapter_id=named.get("adapter_id") or None,
        kind=cast("Kind | None", named.get("kind")),
        spent=spent_of(sums),
    )


def _values(after: str, keys: Sequence[Any]) -> list[Any]:
    try:
        values = json.loads(base64.b64decode(after + "=" * (-len(after) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        values = None
    wanted = [int if key is UsageDay.day else str for key in keys]
    if not isinstance(values, list) or [type(value) for value in values] != wanted:
        raise _no_row(after)
    if any(isinstance(value, int) and abs(value) >= 2**62 for value in values):
        raise _no_row(after)
    return values


def _no_row(after: str) -> InvalidRequest:
    return InvalidRequest(
        f"{after[:60]!a} is no row of such a report",
        param="after",
        next_action="give the `id` of the last row of a page that was asked for with the same `group_by`",
    )
