"""The comparison of two models: what it is made of, how far it is, and what came of it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from nicegui import events, ui

from console.adapter_facts import short_name
from console.choosing import Choice
from console.comparing import Comparison, Contender, Row, compare, prompts_of
from console.components import Compared
from console.drop import Drop
from console.layout import panel
from console.press import press
from console.tables import plain_table
from console.view import View
from console.words import figure, human_bytes
from osora.errors import OsoraUsageError

_MOST_ROWS = 2000
_MOST_BYTES = 64 * 1024 * 1024
_SHOWN_EVERY_SECONDS = 0.5
_ABOUT = (
    "Held-out rows say most: rows that neither model was trained on. Their answers are what both are measured by, and "
    "the rows in which the two differ come first."
)
_SIDES = ("left", "right")
# What is longer would push its neighbours off the screen.
_MOST_SHOWN = 2000


class Board:
    """Everything on the page."""

    def __init__(self, view: View, choice: Choice) -> None:
        self._view = view
        self._choice = choice
        self._content: tuple[bytes, str] | None = None
        self._comparing: asyncio.Task[None] | None = None

    async def show(self, left: str, right: str, chosen: str) -> None:
        """Build it here. Raises OsoraError."""
        files = {
            file["id"]: f"{file['filename']} · {file['id'][-6:]}"
            async for file in self._view.osora.files.list(100, purpose="fine-tune")
        }
        models = self._choice.every()
        models |= {name: short_name(name) for name in (left, right) if name and name not in models}
        with panel():
            with ui.element("div").classes("fields even"):
                self._left = _model(models, left or self._choice.base_names()[0], "Model")
                tuned = next((one["id"] for one in self._choice.adapters), None)
                self._right = _model(models, right or tuned, "Against")
            ui.label("The rows").classes("strong")
            with ui.element("div").classes("fields even"):
                self._file = ui.select(
                    files,
                    value=chosen if chosen in files else None,
                    label="A file that is here",
                    clearable=True,
                    with_input=True,
                )
                self._file.props("outlined dense")
                self._rows = ui.number("Rows at most", value=100, min=1, max=_MOST_ROWS, precision=0)
                self._tokens = ui.number("Tokens of an answer at most", value=256, min=1, precision=0)
                for field in (self._rows, self._tokens):
                    field.props("outlined dense")
            Drop(label="A file from this machine", on_upload=self._take).classes("low")
            self._taken = ui.label().classes("muted").props("role=status")
            with ui.element("div").classes("row-of"):
                self._start_button = press("Compare", self._view.does(self._start), "primary")
                self._stop_button = press("Stop", self._stop)
                self._stop_button.set_visibility(False)
                self._told = ui.label().classes("muted").props("role=status")
        self._found = ui.element("div").classes("stack")
        with self._found, ui.element("div").classes("empty"):
            ui.label(_ABOUT)

    async def _take(self, event: events.UploadEventArguments) -> None:
        if event.file.size() > _MOST_BYTES:
            too_large = f"{event.file.name} is over {human_bytes(_MOST_BYTES)}"
            self._taken.text = f"{too_large}. Send it as a training file first."
            return
        self._content = (await event.file.read(), event.file.name)
        self._file.value = None
        self._taken.text = f"{event.file.name} is there."

    async def _start(self) -> None:
        if self._comparing is not None:
            return
        if not self._left.value or not self._right.value:
            raise OsoraUsageError("Two models are needed", "choose both")
        content, name = await self._chosen()
        prompts = await prompts_of(content, name, min(max(int(self._rows.value or 100), 1), _MOST_ROWS))
        chosen = (str(self._left.value), str(self._right.value))
        left, right = (Contender(name, self._choice.is_base(name)) for name in chosen)
        self._comparing = self._view.background(self._compare(prompts, left, right))

    async def _chosen(self) -> tuple[bytes, str]:
        if self._file.value:
            file = await self._view.osora.files.get(self._file.value)
            if file["bytes"] > _MOST_BYTES:
                raise OsoraUsageError(f"{file['filename']} has {file['bytes']:,} bytes", "choose a smaller file")
            return await self._view.osora.files.content(file["id"]), file["filename"]
        if self._content is None:
            raise OsoraUsageError("No rows were chosen", "choose a file")
        return self._content

    async def _compare(self, prompts: Any, left: Contender, right: Contender) -> None:
        self._busy(True)
        tokens = None if self._tokens.value is None else int(self._tokens.value)
        results = Results(self._found, [self._name(left), self._name(right)])
        shown = 0.0

        def show(found: Comparison) -> None:
            nonlocal shown
            self._told.text = f"{len(found.rows)} of {found.total} rows"
            if time.monotonic() - shown > _SHOWN_EVERY_SECONDS or len(found.rows) == found.total:
                results.show(found)
                shown = time.monotonic()

        try:
            await compare(self._view.osora, prompts, left, right, max_tokens=tokens, show=show)
        except asyncio.CancelledError:
            if self._view.is_open:
                self._told.text += ", stopped"
        finally:
            self._comparing = None
            self._busy(False)

    def _name(self, one: Contender) -> str:
        return one.name if one.is_base else self._choice.tuned().get(one.name, short_name(one.name))

    def _busy(self, is_busy: bool) -> None:
        if not self._view.is_open:
            return
        self._start_button.set_visibility(not is_busy)
        self._stop_button.set_visibility(is_busy)

    def _stop(self) -> None:
        if self._comparing is not None:
            self._comparing.cancel()


class Results:
    """Figures and rows, which grow. `names`: of the two models."""

    def __init__(self, place: ui.element, names: Sequence[str]) -> None:
        self._names = dict(zip(_SIDES, names, strict=True))
        self._values: dict[str, ui.label] = {}
        self._boxes: dict[str, ui.element] = {}
        place.clear()
        with place:
            with ui.element("div").classes("figures"):
                for side, name in self._names.items():
                    self._figure(f"{name}: exact match", f"exact {side}")
                for side, name in self._names.items():
                    self._figure(f"{name}: JSON fields right", f"fields {side}")
                self._figure("Both say the same", "same")
            self._fields = ui.element("div")
            self._table = Compared(self._names, "Rows, those that differ first")

    def show(self, found: Comparison) -> None:
        """What there is by now."""
        for side, score in zip(_SIDES, found.scores, strict=True):
            self._set(f"exact {side}", score.exact_match)
            self._set(f"fields {side}", score.field_match)
            self._boxes[f"fields {side}"].set_visibility(score.field_match is not None)
        answered = sum(row.failed is None for row in found.rows)
        self._set("same", found.same / answered if answered else None)
        self._table.show([self._row(row) for row in found.in_order()])
        if len(found.rows) == found.total:
            self._show_fields(found)

    def _show_fields(self, found: Comparison) -> None:
        fields = found.fields()
        self._fields.clear()
        if not fields:
            return
        rows = [(name, f"{count:,}", figure(left, ".1%"), figure(right, ".1%")) for name, count, left, right in fields]
        with self._fields, panel("JSON fields"):
            plain_table(("Field", "Rows", *self._names.values()), rows, "JSON fields", right=(1, 2, 3))

    def _row(self, row: Row) -> dict[str, Any]:
        if row.failed is not None:
            told: dict[str, Any] = {"left": row.failed, "right": ""}
        else:
            told = {side: _cut(answer or "") for side, answer in zip(_SIDES, row.answers, strict=True)}
        is_marked = row.failed is None and row.expected is not None
        marks = {side: right if is_marked else None for side, right in zip(_SIDES, row.right, strict=True)}
        asked = {"prompt": _cut(row.prompt), "expected": _cut(row.expected or "")}
        return {"line": row.line, "differs": row.differs, "marks": marks, **asked, **told}

    def _figure(self, name: str, key: str) -> None:
        with ui.element("div").classes("figure") as self._boxes[key]:
            ui.label(name).classes("figure-name")
            self._values[key] = ui.label("…").classes("figure-value")

    def _set(self, key: str, share: float | None) -> None:
        self._values[key].text = figure(share, ".1%")


def _cut(text: str) -> str:
    more = len(text) - _MOST_SHOWN
    return f"{text[:_MOST_SHOWN]} … ({more:,} more characters)" if more > 0 else text


def _model(models: dict[str, str], value: str | None, label: str) -> ui.select:
    field = ui.select(models, value=value, label=label, with_input=True, new_value_mode="add-unique")
    field.props("outlined dense")
    return field
