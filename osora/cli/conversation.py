"""A conversation in the terminal: what was said, whom to, and the commands that change it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from osora.cli.failures import report
from osora.cli.output import say
from osora.errors import OsoraError
from osora.schemas import Message

_HELP = """\
/reset            forget what was said
/system TEXT      begin with this system message (without TEXT: with none)
/adapter NAME     talk to another adapter, and keep what was said (without NAME: to the bare base)
/strength NUMBER  scale the adapter; 1 is as it was trained
/max-tokens N     let an answer have so many tokens
/save FILE        add the conversation to FILE as a line of training data
/help             this list
/quit             end the chat, as Ctrl-D does; Ctrl-C stops an answer"""


@dataclass
class Conversation:
    """All that the next request depends on."""

    base: str | None
    adapter: str | None
    system: str | None
    strength: float | None
    settings: dict[str, Any]
    turns: list[Message] = field(default_factory=list)

    @property
    def partner(self) -> str:
        """Whom one talks to, in words."""
        strength = f" at strength {self.strength:g}" if self.adapter and self.strength is not None else ""
        return f"{self.adapter or self.base or 'the bare base'}{strength}"

    def options(self) -> dict[str, Any]:
        """Those of a request."""
        if self.adapter:
            return {**self.settings, "strength": self.strength}
        return {**self.settings, "base": self.base}

    def asked(self, line: str) -> list[Message]:
        """The messages that ask this, after all that was said."""
        return [*self.said, {"role": "user", "content": line}]

    @property
    def said(self) -> list[Message]:
        """The conversation with its system message."""
        first: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.turns]

    def remember(self, line: str, answer: str) -> None:
        self.turns += [{"role": "user", "content": line}, {"role": "assistant", "content": answer}]

    def tell(self, error: OsoraError) -> None:
        """Say what went wrong; what was asked is not remembered."""
        report(error, as_json=False)


class Commands:
    """The lines that begin with a slash. `find` returns the name of an adapter, or raises OsoraError."""

    def __init__(self, talk: Conversation, find: Callable[[str], str]) -> None:
        self._talk = talk
        self._find = find
        self.is_over = False
        self._known: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._system,
            "/adapter": self._adapter,
            "/strength": self._strength,
            "/max-tokens": self._max_tokens,
            "/save": self._save,
            "/help": lambda _: say(_HELP),
            "/quit": self._quit,
        }

    def take(self, line: str) -> bool:
        """Do what the line says, if it is a command; whether it is one."""
        if not line.startswith("/"):
            return False
        name, _, rest = line.strip().partition(" ")
        command = self._known.get(name)
        if command is None:
            meant = get_close_matches(name, self._known, n=1)
            say(f"There is no {name}. " + (f"Did you mean {meant[0]}?" if meant else "/help lists what there is."))
            return True
        try:
            command(rest.strip())
        except OsoraError as error:
            self._talk.tell(error)
        return True

    def _reset(self, _: str) -> None:
        self._talk.turns.clear()
        say("Forgotten; the system message stays." if self._talk.system else "Forgotten.")

    def _system(self, text: str) -> None:
        self._talk.system = text or None
        say("The system message is set." if text else "There is no system message now.")

    def _adapter(self, name: str) -> None:
        self._talk.adapter = self._find(name) if name else None
        say(f"You talk to {self._talk.partner} now.")

    def _strength(self, text: str) -> None:
        try:
            self._talk.strength = float(text)
        except ValueError:
            say("Name a number: /strength 0.5")
            return
        say(f"You talk to {self._talk.partner} now.")

    def _max_tokens(self, text: str) -> None:
        if not text.isdecimal() or not int(text):
            say("Name a number: /max-tokens 200")
            return
        self._talk.settings["max_tokens"] = int(text)
        say(f"An answer has at most {int(text)} tokens now.")

    def _save(self, name: str) -> None:
        if not name or not self._talk.turns:
            say("Name a file: /save FILE.jsonl" if self._talk.turns else "Nothing was said yet.")
            return
        path = Path(name).expanduser()
        try:
            rows = _add_line(path, {"messages": self._talk.said})
        except OSError as error:
            say(f"{path}: {error.strerror}. Name another file.")
            return
        say(f"{path}: row {rows}. It can be trained on: osora train {path}")

    def _quit(self, _: str) -> None:
        self.is_over = True


def _add_line(path: Path, row: dict[str, Any]) -> int:
    """Add a row to a JSONL file, which keeps what it has; returns how many lines there are now."""
    line = json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"
    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        file.write((b"\n" if content and not content.endswith(b"\n") else b"") + line)
    return len(content.splitlines()) + 1
