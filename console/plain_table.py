"""A small table, all of it there at once."""

from collections.abc import Iterable, Sequence

from nicegui import ui


def plain_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The first cell of a row says what it is about. On a narrow page it scrolls by itself."""
    with ui.element("div").classes("scroll").props("tabindex=0"), ui.element("table").classes("plain"):
        with ui.element("thead"), ui.element("tr"):
            for title in titles:
                with ui.element("th").props("scope=col"):
                    ui.label(title)
        with ui.element("tbody"):
            for first, *others in rows:
                with ui.element("tr"):
                    with ui.element("th").props("scope=row"):
                        ui.label(first)
                    for text in others:
                        with ui.element("td"):
                            ui.label(text)
