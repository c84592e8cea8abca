"""A table of rows that are fetched as they are scrolled to: ten thousand cost no more than a hundred, until then."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from nicegui import ui

from console.view import View

Item = TypeVar("Item")

_AT_ONCE = 100
# So close to the last row that is there, the next ones are fetched.
_AHEAD = 30


class LongTable(Generic[Item]):
    """`columns`: as Quasar's, of which those with `wide` are not there on a phone. `row`: of an item, its cells."""

    def __init__(
        self,
        view: View,
        items: AsyncIterator[Item],
        columns: list[dict[str, Any]],
        row: Callable[[Item], dict[str, Any]],
        label: str,
    ) -> None:
        self._view, self._items, self._row = view, items, row
        self._columns, self._label = [_column(column) for column in columns], label
        self._turn = asyncio.Lock()
        self.table: ui.table | None = None
        self.rows: list[dict[str, Any]] = []
        self.is_whole = False

    async def show(self) -> bool:
        """Build it here with its first rows; False, and nothing is built, where there are none. Raises OsoraError."""
        self.rows = await self._next()
        if not self.rows:
            return False
        self.table = ui.table(rows=self.rows, columns=self._columns, row_key="id", pagination=0)
        self.table.props("virtual-scroll hide-pagination flat").classes("long-table")
        self.table.props["aria-label"] = self._label
        self.table.on("virtual-scroll", self._view.does(self._scrolled), args=["to"])
        return True

    async def _scrolled(self, event: Any) -> None:
        if self.is_whole or self.table is None or event.args["to"] < len(self.rows) - _AHEAD:
            return
        async with self._turn:
            self.rows += await self._next()
            self.table.rows = self.rows

    async def _next(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for item in self._items:
            found.append(self._row(item))
            if len(found) == _AT_ONCE:
                return found
        self.is_whole = True
        return found


def _column(column: dict[str, Any]) -> dict[str, Any]:
    told = {"align": "left", "field": column["name"], **column}
    if told.pop("wide", False):
        told |= {"classes": "wide-only", "headerClasses": "wide-only"}
    return told
