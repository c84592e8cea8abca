"""How an assistant's calls are written: the text around a call's name and its arguments."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAME = "[a-zA-Z0-9_-]{1,64}"
ID = "[a-zA-Z0-9]{9}"
"""What stands for a call where its text has an id: some templates want nine letters or digits."""

SLOT = "\0"
"""Where in a piece of text an id stands."""

# What begins a call and can be told from other text by itself, unlike a bracket.
_MARKER = re.compile(r'[^\s{}\[\]"]{3,}')


def call_id(number: int) -> str:
    """The id that the `number`-th call of a conversation has in its text. Whoever asks has others: these say nothing,
    so that a model has nothing to learn of them."""
    return f"{number:09d}"


@dataclass(frozen=True)
class CallFormat:
    """A call is `lead`, its name, `mid`, its arguments and `tail`; several have `between` them, which is None where
    there can be one only. `gap` stands between what the assistant says and its calls; None: it says nothing then.

    `preamble`: what may come before any answer. `separators`: json.dumps's of the arguments.
    """

    lead: str
    mid: str
    tail: str
    between: str | None
    gap: str | None
    preamble: str = ""
    separators: tuple[str, str] = (", ", ": ")

    def marker(self, controls: Sequence[str]) -> str | None:
        """What shows, wherever it is, that a call begins. None, where only an answer that begins with `lead` is one."""
        lead = self.lead.lstrip()
        control = next((control for control in controls if lead.startswith(control)), None)
        if control is not None:
            return control
        found = _MARKER.match(lead)
        return found[0] if found else None

    def write(self, calls: Sequence[tuple[str, Any]]) -> str:
        """The text of calls, each a name and its arguments; of a format without ids."""
        written = [name + self.mid + self.dump(arguments) for name, arguments in calls]
        return self.lead + (self.between or "").join(written) + self.tail

    def dump(self, arguments: Any) -> str:
        """The text of arguments."""
        return json.dumps(arguments, ensure_ascii=False, separators=self.separators)
