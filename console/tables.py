"""Short tables, in plain HTML: what is in them is text."""

from collections.abc import Callable, Sequence

from nicegui import ui

Cell = str | Callable[[], object]
"""What is in a cell: a text, or what builds it there."""


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], label: str, *, right: Sequence[int] = ()) -> None:
    """A table with a name. `right`: the columns of numbers."""
    with ui.element("div").classes("scroll").props("tabindex=0 role=region") as box:
        box.props["aria-label"] = label  # as it is: a prompt may be in it, whatever that has in it
        with ui.element("table").classes("plain"):
            with ui.element("thead"), ui.element("tr"):
                for place, head in enumerate(heads):
                    _cell("th", head, is_right=place in right).props("scope=col")
            with ui.element("tbody"):
                for row in rows:
                    with ui.element("tr"):
                        for place, cell in enumerate(row):
                            _cell("td", cell, is_right=place in right)


def facts(pairs: Sequence[tuple[str, Cell | None]]) -> None:
    """Names and values; those without a value are left out."""
    with ui.element("dl").classes("facts"):
        for name, value in pairs:
            if value in (None, ""):
                continue
            with ui.element("div"):
                with ui.element("dt"):
                    ui.label(name)
                with ui.element("dd"):
                    _fill(value)


def _cell(tag: str, cell: Cell, *, is_right: bool) -> ui.element:
    with ui.element(tag) as element:
        _fill(cell)
    return element.classes("number") if is_right else element


def _fill(cell: Cell | None) -> None:
    if callable(cell):
        cell()
    else:
        ui.label(cell or "")
