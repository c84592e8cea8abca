"""A table of any length: it draws what is on the screen, and fetches what is scrolled to."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from nicegui.element import Element

from console.view import View

Item = TypeVar("Item")
Row = dict[str, Any]

PAGE = 100


def column(name: str, label: str, *, kind: str = "text", wide: bool = False, right: bool = False) -> dict[str, Any]:
    """A column of a table. `kind`: "text", "link" (to the row's `href`), "state" (in the class of its `state_class`)
    or "progress" (of its `percent`). What is `wide` is not there on a phone."""
    told: dict[str, Any] = {"name": name, "field": name, "label": label, "kind": kind}
    told["align"] = "right" if right else "left"
    return told | ({"classes": "wide-only", "headerClasses": "wide-only"} if wide else {})


class Table(Element, component="rows.js"):
    """The element. Rows are dictionaries with an `id`."""

    def __init__(self, rows: list[Row], columns: list[dict[str, Any]], label: str) -> None:
        super().__init__()
        self._props["first"] = rows
        self._props["columns"] = columns
        self._props["label"] = label


class LongTable(Generic[Item]):
    """A table of what an iterator gives, a page at a time. `row`: of an item, its cells, or None to leave it out."""

    def __init__(
        self,
        view: View,
        items: AsyncIterator[Item],
        columns: list[dict[str, Any]],
        row: Callable[[Item], Row | None],
        label: str,
    ) -> None:
        self._view, self._items, self._row = view, items, row
        self._columns, self._label = columns, label
        self.rows: dict[str, Row] = {}
        self.table: Table | None = None

    async def show(self) -> bool:
        """Build it here with its first rows; False, and nothing is built, where there are none. Raises OsoraError."""
        first = await self._next()
        if not first:
            return False
        self.table = Table(first, self._columns, self._label)
        self.table.on("more", self._view.does(self._more))
        return True

    def update(self, row: Row) -> None:
        """Change the row with this id, if it is there."""
        known = self.rows.get(row["id"])
        if self.table is None or known is None or known == {**known, **row}:
            return
        self.rows[row["id"]] = {**known, **row}
        self.table.run_method("update", row)

    async def _more(self) -> None:
        if self.table is not None and (rows := await self._next()):
            self.table.run_method("append", rows)

    async def _next(self) -> list[Row]:
        found: list[Row] = []
        async for item in self._items:
            row = self._row(item)
            if row is not None and row["id"] not in self.rows:
                self.rows[row["id"]] = row
                found.append(row)
            if len(found) == PAGE:
                break
        return found
