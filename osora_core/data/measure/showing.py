"""What people are shown of rows: the text that is trained on, and which messages leave no trace in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from osora_core.data.conversation import Conversations
from osora_core.data.examples import Example
from osora_core.errors import UserError
from osora_core.tools.messages import Messages, Tools

_MOST_SEGMENTS, _MOST_CHARACTERS, _MOST_TOKENS = 40, 800, 4096
_MOST_SHAPES, _MOST_MESSAGES = 64, 64
_FIRST_LINES = 5
_CUT = " … "


def segments(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """The text of an example, control tokens too, in pieces that are trained or not. Long ones lose their middle."""
    pieces, position = [], 0
    # Some tokenizers drop the space that a text begins with, so a piece is what it adds to the text before it.
    whole = len(example) <= _MOST_TOKENS
    before = ""
    for trained, run in groupby(example.mask):
        begin, position = position, position + len(list(run))
        text = _decoded(example.tokens[0 if whole else begin : position], tokenizer)
        added, before = text.removeprefix(before) if whole else text, text
        pieces.append({"text": _shortened(added), "trained": trained})
    if len(pieces) <= _MOST_SEGMENTS:
        return pieces
    half = _MOST_SEGMENTS // 2
    return [*pieces[:half], {"text": _CUT, "trained": False}, *pieces[-half:]]


def _decoded(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.backend_tokenizer.decode(list(tokens), skip_special_tokens=False))


def _shortened(text: str) -> str:
    half = _MOST_CHARACTERS // 2
    return text if len(text) <= _MOST_CHARACTERS else text[:half] + _CUT + text[-half:]


class Traces:
    """Which roles a chat template leaves out, told by conversations with marks in place of their texts: one of each
    shape (its roles in their order) that the rows have."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._left_out: dict[tuple[tuple[str, bool], ...], frozenset[str]] = {}
        self._rows: Counter[str] = Counter()
        self._lines: dict[str, list[int]] = {}

    def add(self, messages: Messages, tools: Tools | None, line: int) -> None:
        """A conversation of a row."""
        if tools or len(messages) > _MOST_MESSAGES or any(message.get("tool_calls") for message in messages):
            return
        shape = tuple((message["role"], bool(message["content"])) for message in messages)
        if shape not in self._left_out:
            if len(self._left_out) == _MOST_SHAPES:
                return
            self._left_out[shape] = self._missing(messages)
        for role in self._left_out[shape]:
            self._rows[role] += 1
            lines = self._lines.setdefault(role, [])
            if len(lines) < _FIRST_LINES:
                lines.append(line)

    def _missing(self, messages: Messages) -> frozenset[str]:
        # Letters alone, so that no template takes a part of it for markup.
        marked = [
            {**message, "content": f"mark{chr(97 + index // 26)}{chr(97 + index % 26)}"}
            if message["content"]
            else dict(message)
            for index, message in enumerate(messages)
        ]
        try:
            text = self._printed(marked)
        except UserError:  # said of the row itself
            return frozenset()
        return frozenset(m["role"] for m in marked if m["content"] and m["content"] not in text)

    def _printed(self, messages: Sequence[Mapping[str, Any]]) -> str:
        transcript = self._conversations.transcript(messages, None)
        hidden = self._conversations.hide(transcript)
        return self._conversations.render(transcript.messages, None, hidden, generate=False)

    def warnings(self) -> list[dict[str, Any]]:
        """One for each role."""
        return [
            {
                "code": "role_left_out",
                "count": count,
                "message": f"the base's chat template prints nothing of a message of the role `{role}`, so the model "
                "never sees it, in training or when it is asked",
                "next_action": f"put what the {role} message says into the first user message",
                "lines": self._lines[role],
            }
            for role, count in sorted(self._rows.items())
        ]
