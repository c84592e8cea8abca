"""The most tokens that a row can come to, without encoding it."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from osora_core.data.conversation import Conversations
from osora_core.errors import UserError

# Characters that one becomes at most where a tokenizer normalises its text.
_NORMALISED = 4
# Twice what a template prints around messages, and tokens that begin and end a text.
_MARGIN, _SPARE = 2, 16


class Bound:
    """No token stands for less than a byte, so a row comes to no more than the bytes of its texts and of what the chat
    template prints around them.

    How a template writes tools and calls is its own affair: such rows have no bound.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, conversations: Conversations) -> None:
        normaliser = getattr(tokenizer.backend_tokenizer, "normalizer", None)
        self._factor = 1 if normaliser is None else _NORMALISED
        self._fixed, self._each = _printed(conversations)

    def of(self, row: Mapping[str, Any]) -> int | None:
        """Of a canonical row; None where it has no bound. Of a preference, that of both answers together."""
        if "text" in row:
            return _SPARE + self._bytes(row["text"])
        if "prompt" in row:
            return _SPARE + self._bytes(row["prompt"]) + self._bytes(row["completion"])
        if "messages" in row:
            return self._conversation(row["messages"], row.get("tools"))
        messages = [*row["input"]["messages"], *row["preferred_output"], *row["non_preferred_output"]]
        return self._conversation(messages, row["input"].get("tools"))

    def _conversation(self, messages: Sequence[Mapping[str, Any]], tools: object) -> int | None:
        if tools or self._fixed is None or any(m.get("tool_calls") or m["role"] == "tool" for m in messages):
            return None
        return self._fixed + sum(self._each + self._bytes(message["content"] or "") for message in messages)

    def _bytes(self, text: str) -> int:
        return self._factor * (len(text) if text.isascii() else len(text.encode()))


def _printed(conversations: Conversations) -> tuple[int | None, int]:
    """Bytes that the template prints around a conversation and around each message, with a margin; None where it
    prints no conversation of two turns."""
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
    try:
        two, four = (_length(conversations, turns * times) for times in (1, 2))
    except UserError:
        return None, 0
    each = (four - two + 1) // 2
    return _MARGIN * max(two - 2 * each, 0) + _SPARE, _MARGIN * each


def _length(conversations: Conversations, messages: Sequence[Mapping[str, Any]]) -> int:
    transcript = conversations.transcript(messages, None)
    hidden = conversations.hide(transcript)
    return len(conversations.render(transcript.messages, None, hidden, generate=False).encode())
