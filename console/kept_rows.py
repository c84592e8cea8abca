"""Training rows made of conversations: kept while the page is open, until they are downloaded or sent as a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from osora.schemas import Message

FILENAME = "conversations.jsonl"


@dataclass
class KeptRows:
    """Rows in the order in which they were kept."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, system: str, turns: Sequence[Message], answer: str) -> None:
        """A conversation whose last answer is to be this one, whatever the model said."""
        first: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        self.rows.append({"messages": [*first, *turns[:-1], {"role": "assistant", "content": answer}]})

    def keep_text(self, prompt: str, completion: str) -> None:
        """A text and how it is to go on, for a base without a template for conversations."""
        self.rows.append({"prompt": prompt, "completion": completion})

    def jsonl(self) -> bytes:
        """As a training file."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows).encode(errors="replace")
