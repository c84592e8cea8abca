"""Training rows made of conversations: kept while the page is open, until they are downloaded or sent as a file."""

import json
from dataclasses import dataclass, field
from typing import Any

from osora.schemas import Message

FILENAME = "conversations.jsonl"


@dataclass(frozen=True)
class Said:
    """A conversation up to an answer, which is the last of its turns; or of a base without a template, a prompt."""

    prompt: str
    system: str = ""
    turns: tuple[Message, ...] = ()
    is_chat: bool = True

    def row(self, answer: str) -> dict[str, Any]:
        """As a training row, with what the answer should have been."""
        if not self.is_chat:
            return {"prompt": self.prompt, "completion": answer}
        first: list[Message] = [{"role": "system", "content": self.system}] if self.system.strip() else []
        return {"messages": [*first, *self.turns[:-1], {"role": "assistant", "content": answer}]}


@dataclass
class KeptRows:
    """Rows in the order in which they were kept."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, said: Said, answer: str) -> None:
        """One more."""
        self.rows.append(said.row(answer))

    def jsonl(self) -> bytes:
        """As a training file."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows).encode(errors="replace")
