"""Adding to the sums of a day."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry.db import now_seconds
from registry.usage.tables import UsageDay

DAY_SECONDS = 24 * 3600
# Two parameters a column at most, and SQLite takes 32,766 in a statement.
_ROWS_A_STATEMENT = 500


def day_of(seconds: int) -> int:
    """The first second of its day in UTC."""
    return seconds - seconds % DAY_SECONDS


def clock(session: Session) -> int:
    """The database's."""
    return int(session.execute(select(now_seconds())).scalar_one())


def insert(session: Session, table: Table) -> Any:
    """An INSERT that knows what to do about a row that is there already."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def add(session: Session, rows: Iterable[dict[str, Any]]) -> None:
    """Adds rows, each of another key, to the sums.

    In the order of their keys, so that two transactions that add to the same sums never wait for each other in a
    circle.
    """
    table: Any = UsageDay.__table__
    keys: Sequence[Column[Any]] = list(table.primary_key.columns)
    counters = [column for column in table.columns if not column.primary_key]
    empty: dict[str, Any] = {column.name: 0 for column in counters}
    ordered = sorted(({**empty, **row} for row in rows), key=lambda row: [row[key.name] for key in keys])
    for start in range(0, len(ordered), _ROWS_A_STATEMENT):
        statement = insert(session, table).values(ordered[start : start + _ROWS_A_STATEMENT])
        sums = {column.name: column + statement.excluded[column.name] for column in counters}
        session.execute(statement.on_conflict_do_update(index_elements=keys, set_=sums))
