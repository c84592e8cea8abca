"""The playground: who sits at the table, what they are asked, what they say."""

import asyncio

from nicegui import ui

from console.adapter_facts import short_name
from console.answer_column import Column
from console.choosing import Choice
from console.failures import sentence
from console.kept_rows import FILENAME, KeptRows, Said
from console.layout import panel
from console.playing import MOST_MODELS, Answer, Seat, Settings, ask
from console.press import press
from console.view import View
from osora.errors import OsoraAPIError


class Table:
    """Everything on the page. A model that takes its place keeps it, and its conversation, until it is taken away."""

    def __init__(self, view: View, choice: Choice) -> None:
        self._view = view
        self._choice = choice
        self._kept = KeptRows()
        self._columns: dict[str, Column] = {}
        self._extra: dict[str, str] = {}
        self._asking: asyncio.Task[None] | None = None

    async def show(self, models: tuple[str, ...], strength: float) -> None:
        """Build it here, with these models chosen, as far as they are there."""
        base, tuned = await self._seats_of(models[:MOST_MODELS])
        with panel():
            self._build_models(base, tuned)
            self._build_settings()
            self._build_prompt()
        self._answers = ui.element("div").classes("answers")
        self._build_kept()
        self._seat(strength)

    async def _seats_of(self, models: tuple[str, ...]) -> tuple[str, list[str]]:
        """The base of the models, and those of them that are none. What is not there is told."""
        base, tuned = self._choice.base_names()[0], []
        for model in models:
            if self._choice.is_base(model):
                base = model
                continue
            known = next((one for one in self._choice.adapters if model in (one["id"], one["name"])), None)
            if known is None and model not in self._choice.tuned():
                try:
                    known = await self._view.osora.adapters.get(model)
                except OsoraAPIError as error:
                    with panel(classes="problem"):
                        ui.label(sentence(error)).classes("problem-message").props("role=alert")
                    continue
                self._extra[known["id"]] = f"{short_name(known['name'])} · step {known.get('step')}"
            base = known["base"] if known else base
            tuned.append(known["id"] if known else model)
        return base, tuned

    def _build_models(self, base: str, models: list[str]) -> None:
        with ui.element("div").classes("fields even"):
            self._base = ui.select(self._choice.base_names(), value=base, label="Base", on_change=self._base_changed)
            self._base.props("outlined dense")
            self._models = ui.select(
                self._options(base),
                value=models,
                label=f"Beside it, up to {MOST_MODELS} adapters, checkpoints or aliases",
                multiple=True,
                with_input=True,
                new_value_mode="add-unique",
                on_change=lambda: self._seat(),
            )
            self._models.props(f"outlined dense use-chips max-values={MOST_MODELS}")

    def _build_settings(self) -> None:
        with ui.expansion("Parameters and system message", icon="tune").props("dense").classes("knobs"):
            with ui.element("div").classes("fields even small-fields"):
                self._max_tokens = ui.number("Tokens at most", value=256, min=1, precision=0)
                self._temperature = ui.number("Temperature", value=0, min=0, max=2, step=0.1)
                self._top_p = ui.number("Top p", value=1, min=0.01, max=1, step=0.05)
                self._seed = ui.number("Seed", value=None, min=0, precision=0)
                for field in (self._max_tokens, self._temperature, self._top_p, self._seed):
                    field.props("outlined dense")
            self._probabilities = ui.checkbox("Token probabilities", value=True)
            self._system = ui.textarea("System message").props("outlined dense autogrow").classes("w-full")

    def _build_prompt(self) -> None:
        self._prompt = ui.textarea("Prompt").props("outlined autogrow").classes("w-full prompt")
        # The browser decides, so that a key that is pressed asks for nothing.
        self._prompt.on(
            "keydown",
            self._view.does(self._send),
            js_handler="(e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); emit(); } }",
        )
        with ui.element("div").classes("row-of"):
            self._send_button = press("Send", self._view.does(self._send), "primary")
            self._stop_button = press("Stop", self._stop)
            self._stop_button.set_visibility(False)
            press("New conversation", self._forget, "quiet")
            ui.label("Ctrl+Enter sends").classes("small muted wide-only")

    def _build_kept(self) -> None:
        with panel("Training rows") as self._kept_panel:
            self._kept_told = ui.label().classes("muted")
            with ui.element("div").classes("row-of"):
                for text, work in (("Download", self._download), ("Send as a training file", self._upload)):
                    press(text, self._view.does(work))
            self._kept_file = ui.element("div")
        self._kept_panel.set_visibility(False)

    def _options(self, base: str) -> dict[str, str]:
        return {**self._choice.tuned(base), **self._extra}

    def _base_changed(self) -> None:
        options = self._options(self._base.value)
        self._models.set_options(options, value=[model for model in self._models.value if model in options])
        self._seat()

    def _seat(self, strength: float = 1.0) -> None:
        """A column for each model that is chosen, as it was where it has been there before."""
        chosen = [(self._base.value, True), *((model, False) for model in self._models.value)]
        for name in [name for name in self._columns if name not in dict(chosen)]:
            self._columns.pop(name).delete()
        for name, is_base in chosen:
            if name not in self._columns:
                seat = Seat(name, is_base, 1.0 if is_base else strength)
                title = name if is_base else self._options(self._base.value).get(name, name)
                with self._answers:
                    self._columns[name] = Column(self._view, seat, title, self._keep)
        for place, (name, _) in enumerate(chosen):
            self._columns[name].move(place)

    async def _send(self) -> None:
        prompt = str(self._prompt.value or "")
        if self._asking is not None or not prompt.strip():
            return
        self._asking = self._view.background(self._ask(prompt, self._settings(), str(self._system.value or "")))

    def _settings(self) -> Settings:
        return Settings(
            max_tokens=_whole(self._max_tokens.value),
            temperature=float(self._temperature.value or 0),
            top_p=float(self._top_p.value or 1),
            seed=_whole(self._seed.value),
            probabilities=bool(self._probabilities.value),
        )

    async def _ask(self, prompt: str, settings: Settings, system: str) -> None:
        self._busy(True)
        is_chat = self._choice.is_chat(self._base.value)
        columns = list(self._columns.values())
        try:
            await asyncio.gather(*(self._ask_one(column, prompt, settings, system, is_chat) for column in columns))
            if self._prompt.value == prompt:  # not what somebody has begun to write meanwhile
                self._prompt.value = ""
        except asyncio.CancelledError:
            for column in columns if self._view.is_open else ():
                column.stopped()
        finally:
            self._asking = None
            self._busy(False)

    async def _ask_one(self, column: Column, prompt: str, settings: Settings, system: str, is_chat: bool) -> None:
        asked = column.seat.asked(system, prompt, is_chat=is_chat)
        column.begin(prompt, system, is_chat=is_chat)
        answer: Answer = await ask(self._view.osora, column.seat, asked, settings, column.show)
        column.end(answer)

    def _busy(self, is_busy: bool) -> None:
        if not self._view.is_open:
            return
        self._send_button.set_visibility(not is_busy)
        self._stop_button.set_visibility(is_busy)

    def _stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _forget(self) -> None:
        self._stop()
        for column in self._columns.values():
            column.forget()

    def _keep(self, said: Said, answer: str) -> None:
        self._kept.keep(said, answer)
        count = len(self._kept.rows)
        self._kept_told.text = f"{count} row{'' if count == 1 else 's'}, kept while this page is open."
        self._kept_panel.set_visibility(True)

    async def _download(self) -> None:
        ui.download.content(self._kept.jsonl(), FILENAME)

    async def _upload(self) -> None:
        file = await self._view.osora.files.upload(self._kept.jsonl(), filename=FILENAME)
        self._kept_file.clear()
        with self._kept_file:
            ui.label(f"{file['id']} is there, with {len(self._kept.rows)} rows.").classes("good")
            ui.link("Train on it", f"/jobs/new?file={file['id']}")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
