"""Buttons and questions that look like the console's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nicegui import ui

from console.layout import heading


def press(text: str, on_click: Callable[..., Any] | None = None, kind: str = "", label: str = "") -> ui.button:
    """`kind`: of "primary", "danger", "quiet", "small". `label`: for whoever does not see what it stands beside."""
    button = ui.button(text, on_click=on_click, color=None).props("flat no-caps").classes(f"button {kind}")
    if label:
        button.props["aria-label"] = label
    return button


@contextmanager
def question(title: str, dialog: ui.dialog | None = None, *, wide: bool = False) -> Iterator[ui.dialog]:
    """Build in here what a dialog asks, or what `dialog` asks now. It is opened by whoever needs the answer."""
    dialog = dialog or ui.dialog()
    dialog.clear()
    dialog.props["aria-label"] = title
    with dialog, ui.card().classes(f"question {'wide' if wide else ''}"):
        heading(title, 2)
        yield dialog
