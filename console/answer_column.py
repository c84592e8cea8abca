"""A model's place in the playground: its strength, what was said, and how each answer came about."""

from collections.abc import Callable

from nicegui import ui

from console.components import Tokens
from console.failures import sentence
from console.kept_rows import Said
from console.layout import heading
from console.playing import Answer, Seat
from console.press import press, question
from console.tables import facts
from console.view import View

STRONGEST = 2.0


class Column:
    """What it shows of a model is text, whatever the model says."""

    def __init__(self, view: View, seat: Seat, title: str, keep: Callable[[Said, str], None]) -> None:
        self.seat = seat
        self.prompt = self.system = ""
        self.is_chat = True
        self._view, self._title, self._keep = view, title, keep
        with ui.element("section").classes("panel answer") as self._element:
            self._element.props["aria-label"] = title
            heading(title, 2)
            if seat.is_base:
                ui.label("The base, as it came").classes("small muted")
            else:
                self._build_strength()
            self._turns = ui.element("div").classes("turns").props("role=log")
        self._text: ui.label | None = None
        self._state: ui.label | None = None
        self._turn: ui.element | None = None

    def move(self, place: int) -> None:
        """To this place among its neighbours."""
        self._element.move(target_index=place)

    def delete(self) -> None:
        self._element.delete()

    def forget(self) -> None:
        """Begin anew."""
        self.seat.turns.clear()
        self._turns.clear()

    def begin(self, prompt: str, system: str, *, is_chat: bool) -> None:
        """It has been asked."""
        self.prompt, self.system, self.is_chat = prompt, system, is_chat
        if not is_chat:
            self._turns.clear()
        with self._turns:
            ui.label(prompt).classes("said asked wrap")
            with ui.element("div").classes("said") as self._turn:
                self._text = ui.label("").classes("wrap model-text")
                self._state = ui.label("waiting").classes("small muted")

    def show(self, answer: Answer) -> None:
        """What there is by now."""
        if self._text is not None and self._state is not None:
            self._text.text = answer.text
            self._state.text = f"{answer.seconds:.1f} s"

    def stopped(self) -> None:
        """Nobody wants to hear more."""
        if self._state is not None and self._state.text != "":
            self._state.text = "stopped"

    def end(self, answer: Answer) -> None:
        """All of it, with what can be told of it."""
        if self._turn is None or self._text is None or self._state is None:
            return
        if answer.error is not None:
            self._state.delete()
            with self._turn:
                ui.label(sentence(answer.error)).classes("problem-message").props("role=alert")
            return
        self._state.delete()
        self._state = None
        if self.is_chat:
            self.seat.remember(self.prompt, answer.text)
        if tokens := answer.tokens():
            self._text.delete()
            with self._turn:
                Tokens(tokens, f"Answer of {self._title}, token by token")
        elif not answer.text:
            self._text.text = "(nothing)"
        with self._turn:
            ui.label(answer.timing()).classes("small muted")
            self._build_receipt(answer)
            self._build_keeping(answer)

    def _build_strength(self) -> None:
        with ui.element("div").classes("strength"):
            ui.label("Strength").classes("small muted")
            slider = ui.slider(min=0, max=STRONGEST, step=0.05, value=self.seat.strength)
            slider.props("color=primary").props["aria-label"] = f"Strength of {self._title}"
            told = ui.label(f"{self.seat.strength:.2f}").classes("number small")

        def scaled() -> None:
            self.seat.strength = round(float(slider.value), 2)
            told.text = f"{self.seat.strength:.2f}"

        slider.on_value_change(scaled)

    def _build_receipt(self, answer: Answer) -> None:
        with ui.expansion("Receipt").props("dense").classes("receipt small"):
            facts(answer.receipt())

    def _build_keeping(self, answer: Answer) -> None:
        """The answer may be made right before it is kept."""
        said = Said(self.prompt, self.system, tuple(self.seat.turns), self.is_chat)
        button = press("Save as a training row", kind="quiet small")
        with question("Save as a training row", wide=True) as dialog:
            ui.label("The conversation so far, with this as its last answer. Write what it should have said.")
            text = ui.textarea("Answer", value=answer.text).props("outlined autogrow").classes("w-full")

            def keep() -> None:
                self._keep(said, str(text.value or ""))
                dialog.close()
                button.text = "Saved as a training row"

            with ui.element("div").classes("row-of end"):
                press("Leave it", dialog.close)
                press("Save", keep, "primary")
        button.on_click(dialog.open)
