"""What a row asks and what it answers, as text, and the two folded so that near duplicates are equal."""

import json
from collections.abc import Sequence
from typing import Any

from osora_data.rows import Row

Texts = tuple[str, Sequence[str]]
"""All that comes before the last answer; and what is learned, the last answer last: of a preference, the preferred
answer and the other."""

BETWEEN = "\0"
RULE = "but for upper and lower case, white space and the marks . , ; : ! ? ' \" ( )"

_DELETED = b" \t\n\r\v\f.,;:!?'\"()"
_LOWER = bytes(range(256)).lower()


def texts_of(row: Row) -> Texts:
    """The texts of a canonical row."""
    value = row.value
    match row.format:
        case "chat":
            return _chat(value)
        case "completion":
            return value["prompt"], (value["completion"],)
        case "text":
            return "", (value["text"],)
        case "preference":
            asked = value["input"]
            pair = [_said(value[side][0]) for side in ("preferred_output", "non_preferred_output")]
            return BETWEEN.join([*map(_said, asked["messages"]), *_tools(asked)]), pair


def folded(text: str, encoded: bytes) -> bytes:
    """Texts that are equal (see `RULE`) give equal bytes. `encoded`: the text in UTF-8."""
    if text.isascii():
        return encoded.translate(_LOWER, _DELETED)
    return text.lower().encode("utf-8", "surrogatepass").translate(None, _DELETED)


def _chat(value: dict[str, Any]) -> Texts:
    messages = value["messages"]
    if len(messages) == 2 and len(value) == 1:  # most rows, by far
        asked, answer = messages
        if len(asked) == 2 and len(answer) == 2 and answer["role"] == "assistant":
            return asked["content"], (answer["content"],)
    said = [_said(message) for message in messages]
    learned = [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1) != 0
    ]
    if not learned:
        return BETWEEN.join(said), ()
    return BETWEEN.join([*said[: learned[-1]], *_tools(value)]), [said[index] for index in learned]


def _said(message: dict[str, Any]) -> str:
    content: str = message["content"] or ""
    calls = message.get("tool_calls")
    if not calls:
        return content
    return content + json.dumps([call["function"] for call in calls], sort_keys=True)


def _tools(asked: dict[str, Any]) -> list[str]:
    tools = asked.get("tools")
    return [json.dumps(tools, sort_keys=True)] if tools else []
