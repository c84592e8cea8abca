"""Pages of rows, the way OpenAI's lists page: `after` an id, at most `limit`, in an `order`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")
Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows, and whether there are more after them."""

    data: Sequence[Row]
    has_more: bool


def fetch_page(
    session: Session,
    statement: Select[Row],
    keys: Sequence[InstrumentedAttribute[Any]],
    *,
    after: Sequence[Any] | None,
    limit: int,
    order: Order,
) -> Page[Row]:
    """One page of `statement`, ordered by `keys` (unique together), after the row whose keys are `after`."""
    if after is not None:
        position: ColumnElement[Any] = tuple_(*keys)
        bound = tuple_(*after)
        statement = statement.where(position > bound if order == "asc" else position < bound)
    statement = statement.order_by(*(key.asc() if order == "asc" else key.desc() for key in keys))
    rows = session.scalars(statement.limit(limit + 1)).all()  # one more tells whether there are more
    return Page(data=rows[:limit], has_more=len(rows) > limit)
