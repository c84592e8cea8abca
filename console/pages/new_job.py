"""A new job: a file, what is said of it, a few choices, what it would cost, and go."""

import asyncio
import secrets
import tempfile
from pathlib import Path
from typing import Any

from nicegui import events, ui

from console import file_report
from console.drop import Drop
from console.failures import sentence
from console.job_form import AUTO, OVERLONG, RATES, Choices, presets_of
from console.layout import heading, panel
from console.tables import facts
from console.view import View, page
from console.words import duration, human_bytes, when
from osora.errors import OsoraAPIError, OsoraError
from osora.schemas import Base, File

_MOST_FILES = 50
_CHOSEN_LATER = 0.5
# A large file takes its time; what is not counted then, a reload shows.
_AGAIN_SECONDS = (1, 2, 4, 8, 15, 30, 60)


@page("/jobs/new", "New job", nav=15, icon="add_circle_outline")
async def show(view: View, file: str = "") -> None:
    """The form; with `file`, of a file that is there already."""
    bases = [base for base in await view.osora.bases() if not base.get("problem")]
    files = [one async for one in view.osora.files.list(_MOST_FILES, purpose="fine-tune")]
    form = _NewJob(view, bases, files)
    form.build()
    if file:
        await form.take(await view.osora.files.get(file))


class _NewJob:
    def __init__(self, view: View, bases: list[Base], files: list[File]) -> None:
        self._view = view
        self._bases = {base["name"]: base for base in bases}
        self._files = {file["id"]: file for file in files}
        self._file: File | None = None
        self._choices = Choices(base=next(iter(self._bases), None))
        # However often "Start" is pressed, one job is made of what is chosen.
        self._once = secrets.token_urlsafe(16)
        self._estimating: asyncio.Task[None] | None = None
        self._measuring: asyncio.Task[None] | None = None

    def build(self) -> None:
        heading("New job")
        with panel("1. Training file"):
            self._pick()
            self._report = ui.element("div").classes("stack").props("aria-live=polite")
        with panel("2. What to train") as self._second:
            self._options = ui.element("div").classes("stack")
        with panel("3. What it would take") as self._third:
            self._estimate = ui.element("div").classes("stack").props("aria-live=polite")
            self._start = ui.button("Start training", color=None, on_click=self._view.does(self._begin))
            self._start.props("flat no-caps").classes("button primary")
        self._fill_options()
        self._show_rest(False)

    async def take(self, file: File) -> None:
        """Go on with a file that the service has."""
        self._file = file
        self._choices.file_id, self._choices.format = file["id"], (file.get("osora") or {}).get("format")
        await self._read_report()
        self._show_rest(True)
        self._changed()

    def _pick(self) -> None:
        ui.label("JSON Lines, a JSON array, CSV or Parquet, plain or compressed: conversations, prompts with answers, "
                 "preferences, or plain text.").classes("muted")  # fmt: skip
        Drop(label="Training file", on_upload=self._view.does(self._uploaded))
        if self._files:
            named = {
                file_id: f"{file['filename']} · {when(file['created_at'])}" for file_id, file in self._files.items()
            }
            chosen = ui.select(named, label="or one that is here already", with_input=True).props("outlined dense")
            chosen.on_value_change(self._view.does(self._picked)).classes("field-wide")

    async def _picked(self, event: Any) -> None:
        if event.value:
            await self.take(self._files[event.value])

    async def _uploaded(self, event: events.UploadEventArguments) -> None:
        self._show_rest(False)
        self._report.clear()
        with self._report:
            ui.label(f"Checking {event.file.name} …").classes("muted")
        try:
            file = await self._send(event)
        except OsoraAPIError as error:
            self._report.clear()
            if error.status == 401:
                raise
            with self._report:
                file_report.refused(error, event.file.name)
        except OsoraError:
            self._report.clear()
            raise
        else:
            await self.take(file)

    async def _send(self, event: events.UploadEventArguments) -> File:
        with tempfile.TemporaryDirectory(prefix="osora-console-") as folder:
            path = Path(folder) / "upload"
            await event.file.save(path)
            return await self._view.osora.files.upload(path, filename=event.file.name)

    async def _read_report(self) -> None:
        """Show what is known of the file; where its tokens are still being counted, again until they are."""
        if self._measuring is not None:
            self._measuring.cancel()
        if not await self._show_report():
            self._measuring = self._view.background(self._read_again())

    async def _read_again(self) -> None:
        for seconds in _AGAIN_SECONDS:
            await asyncio.sleep(seconds)
            if await self._show_report():
                return

    async def _show_report(self) -> bool:
        assert self._file is not None
        file, base = self._file, self._choices.base
        told: Any = await self._view.osora.files.report(file["id"], base)
        self._report.clear()
        with self._report:
            file_report.report(file, told, base)
        return "unavailable" not in ((told.get("tokens") or {}).get(base or "") or {})

    def _show_rest(self, is_there: bool) -> None:
        for part in (self._second, self._third):
            part.set_visibility(is_there)

    def _fill_options(self) -> None:
        choices = self._choices
        self._options.clear()
        with self._options:
            with ui.element("div").classes("fields"):
                self._select("Base", {name: name for name in self._bases}, choices.base, self._choose_base)
                if presets := presets_of(self._bases.get(choices.base or "")):
                    named = {"": "the service's choice"} | presets
                    self._select(
                        "Preset", named, choices.preset or "", self._set("preset", lambda value: value or None)
                    )
                self._text("Name", self._set("suffix", str), hint="becomes a part of the adapter's name")
                self._select("Learning rate", RATES, choices.rate_kind, self._choose_rate)
                self._rate = self._number("Rate", "rate", step="any")
                self._rate.set_visibility(choices.rate_kind == "number")
                self._number("Epochs", "epochs", is_whole=True)
                self._number("Batch size", "batch_size", is_whole=True)
                self._select("Rows that are too long", OVERLONG, choices.overlong, self._set("overlong", str))
                self._percent()
                self._validation()
            prompts = ui.textarea("Prompts to try at each evaluation, one on a line")
            prompts.props("outlined autogrow debounce=600").classes("field-wide")
            prompts.on_value_change(self._view.does(self._set("sample_prompts", _lines)))

    def _select(self, label: str, options: dict[str, str], value: str | None, then: Any) -> ui.select:
        element = ui.select(options, label=label, value=value).props("outlined dense")
        element.on_value_change(self._view.does(then))
        return element

    def _text(self, label: str, then: Any, hint: str) -> None:
        ui.input(label, placeholder=hint).props("outlined dense debounce=600").on_value_change(self._view.does(then))

    def _number(self, label: str, name: str, *, is_whole: bool = False, step: str = "1") -> ui.number:
        element = ui.number(label, placeholder="auto").props(f'outlined dense debounce=600 step="{step}"')
        element.on_value_change(self._view.does(self._set(name, lambda value: _number(value, is_whole))))
        return element

    def _percent(self) -> None:
        element = ui.number("Held out to validate on, in %", placeholder="auto", min=0, max=90)
        element.props("outlined dense debounce=600")
        share = self._set("validation_share", lambda value: None if value is None else value / 100)
        element.on_value_change(self._view.does(share))

    def _validation(self) -> None:
        if not self._files:
            return
        named = {"": "a part of the training file"} | {
            file_id: f"{file['filename']} · {when(file['created_at'])}" for file_id, file in self._files.items()
        }
        self._select("Validation file", named, "", self._set("validation_file", lambda value: value or None))

    def _set(self, name: str, convert: Any) -> Any:
        async def handle(event: Any) -> None:
            setattr(self._choices, name, convert(event.value))
            self._changed()

        return handle

    async def _choose_base(self, event: Any) -> None:
        self._choices.base, self._choices.preset = event.value, None
        self._fill_options()
        if self._file is not None:
            await self._read_report()
        self._changed()

    async def _choose_rate(self, event: Any) -> None:
        self._choices.rate_kind = event.value or AUTO
        self._rate.set_visibility(self._choices.rate_kind == "number")
        self._changed()

    def _changed(self) -> None:
        """Ask for an estimate, once it has been quiet for a moment."""
        self._once = secrets.token_urlsafe(16)
        if self._estimating is not None:
            self._estimating.cancel()
        if self._choices.is_ready:
            self._estimating = self._view.background(self._ask_estimate())

    async def _ask_estimate(self) -> None:
        await asyncio.sleep(_CHOSEN_LATER)
        choices = self._choices
        try:
            told: Any = await self._view.osora.jobs.dry_run(
                choices.base or "", choices.file_id or "", **choices.fields()
            )
        except OsoraAPIError as error:
            if error.status == 401:
                raise
            self._refuse(error)
            return
        self._start.set_enabled(True)
        self._estimate.clear()
        with self._estimate:
            _forecast(told)

    def _refuse(self, error: OsoraError) -> None:
        self._start.set_enabled(False)
        self._estimate.clear()
        with self._estimate:
            ui.label(sentence(error)).classes("problem-message").props("role=alert")

    async def _begin(self) -> None:
        choices = self._choices
        self._start.set_enabled(False)
        try:
            job = await self._view.osora.jobs.create(
                choices.base or "", choices.file_id or "", idempotency_key=self._once, **choices.fields()
            )
        finally:
            self._start.set_enabled(True)
        ui.navigate.to(f"/jobs/{job['id']}")


def _forecast(told: Any) -> None:
    rows, tokens, settings = told.get("rows") or {}, told.get("tokens") or {}, told.get("osora") or {}
    seconds, members = told.get("estimated_seconds"), settings.get("sweep")
    rate = settings.get("learning_rate")
    hyperparameters = told.get("hyperparameters") or {}
    facts(
        [
            ("it would take", "not known yet" if seconds is None else duration(seconds)),
            ("likely end", when(told.get("estimated_finish"))),
            ("jobs ahead", str(told.get("queue_position") or "none")),
            ("steps", f"{told['steps']:,}"),
            ("epochs", str(hyperparameters.get("n_epochs", ""))),
            ("batch size", str(hyperparameters.get("batch_size", ""))),
            ("learning rate", f"{len(members)} are tried" if members else "" if rate is None else f"{rate:g}"),
            ("rank", str(settings.get("rank") or "")),
            ("rows", _rows(rows)),
            ("tokens an epoch", f"{tokens['training']:,}" if tokens.get("training") else ""),
            ("adapter", human_bytes(told.get("adapter_bytes"))),
        ]
    )
    for warning in told.get("warnings") or []:
        ui.label(warning if isinstance(warning, str) else str(warning.get("message", ""))).classes("warn")


def _rows(rows: Any) -> str:
    words = {"training": "to train on", "validation": "to validate on", "truncated": "cut", "dropped": "left out"}
    return ", ".join(f"{rows[name]:,} {said}" for name, said in words.items() if rows.get(name))


def _number(value: Any, is_whole: bool) -> Any:
    if value in (None, ""):
        return None
    return int(value) if is_whole else float(value)


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]
