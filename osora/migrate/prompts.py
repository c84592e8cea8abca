"""Prompts of a file, written as training files are: chats, prompts, preferences; and their answers."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import osora_data
from osora.errors import OsoraUsageError
from osora.migrate.text import one_line
from osora_data.formats.row_check import RowCheck
from osora_data.formats.shapes import ALPACA, PAIRS, SHAREGPT, shape_of
from osora_data.notes import Notes

Message = dict[str, Any]
_CHAT = ("messages", "tools", "parallel_tool_calls")
_MESSAGE = ("role", "content", "tool_calls", "tool_call_id", "weight")
_TEXT = ("prompt", "completion")
_PREFERENCE = ("input", "preferred_output", "non_preferred_output")
_EXAMPLE = 'write each line as {"messages": [{"role": "user", "content": "…"}]} or {"prompt": "…"}'


@dataclass(frozen=True)
class Prompt:
    """What is asked on one line of a file: `messages` or, of a text to be continued, `text`.

    `answer`: the one in the file: the last message, the completion or the preferred output; None if there is none.
    `rest`: what goes with the messages, such as `tools`.
    """

    line: int
    messages: list[Message] | None
    text: str | None
    answer: Message | None
    rest: dict[str, Any]

    @property
    def key(self) -> str:
        """The same for the same prompt, whatever its answer is."""
        return _hash([self.asked, self.text, self.rest])

    @property
    def group(self) -> str:
        """The same for prompts that differ in case and white space only."""
        return _hash(" ".join(self.shown.casefold().split()))

    @property
    def asked(self) -> list[Message] | None:
        """The messages as they are sent: `weight` is for training."""
        if self.messages is None:
            return None
        return [{name: value for name, value in message.items() if name != "weight"} for message in self.messages]

    @property
    def shown(self) -> str:
        """The prompt as one text, without the roles of a single message."""
        if self.messages is None:
            return self.text or ""
        if len(self.messages) == 1:
            return answer_text(self.messages[0])
        return "\n".join(f"{message['role']}: {answer_text(message)}" for message in self.messages)

    def row(self, answer: Message) -> dict[str, Any]:
        """A training row of this prompt with another answer."""
        if self.messages is None:
            return {"prompt": self.text, "completion": answer["content"]}
        return {"messages": [*self.messages, answer], **self.rest}


def answer_text(message: Message) -> str:
    """What a message says; of one that calls functions, the calls as JSON."""
    calls = message.get("tool_calls")
    if not calls:
        return str(message.get("content") or "")
    functions = [call["function"] for call in calls]
    return json.dumps(
        [{"name": one["name"], "arguments": _parsed(one.get("arguments"))} for one in functions],
        ensure_ascii=False,
        sort_keys=True,
    )


def read_prompts(path: Path) -> Iterator[Prompt]:
    """The prompts of a file, one at a time. Raises OsoraUsageError, which names the line, for one that is none."""
    with path.open("rb") as file:
        for item in osora_data.read_values(file):
            if isinstance(item, osora_data.Problem):
                raise OsoraUsageError(f"{path} {item.message}", item.next_action)
            line, row = item
            yield _Line(path, line).read(row)


class _Line:
    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number

    def wrong(self, problem: str, next_action: str = _EXAMPLE) -> OsoraUsageError:
        return OsoraUsageError(f"{self.path} line {self.number}: {problem}", next_action)

    def read(self, row: Any) -> Prompt:
        if not isinstance(row, dict):
            raise self.wrong("is not a JSON object")
        if (shape := shape_of(row)) in (ALPACA, PAIRS, SHAREGPT):
            try:
                row = shape.read(RowCheck(Notes()), row)
            except osora_data.RowError as error:
                raise self.wrong(error.at(self.number).fault, error.next_action) from None
        kind = next((keys for keys in (_CHAT, _TEXT, _PREFERENCE) if keys[0] in row), None)
        if kind is None:
            raise self.wrong("has neither `messages` nor `prompt`")
        unknown = [key for key in row if key not in kind]
        if unknown:
            raise self.wrong(f"`{one_line(unknown[0])}` is not known here", f"remove it; known are {', '.join(kind)}")
        if kind is _TEXT:
            return self._text(row)
        if kind is _CHAT:
            return self._chat(row)
        return self._preference(row)

    def _text(self, row: dict[str, Any]) -> Prompt:
        for key in row:
            if not isinstance(row[key], str):
                raise self.wrong(f"`{key}` is not a text")
        answer = {"role": "assistant", "content": row["completion"]} if "completion" in row else None
        return Prompt(self.number, None, row["prompt"], answer, {})

    def _chat(self, row: dict[str, Any]) -> Prompt:
        messages = self._messages(row["messages"], "messages")
        answer = messages.pop() if messages[-1]["role"] == "assistant" else None
        if not messages:
            raise self.wrong("`messages` is an answer without a question")
        rest = {key: row[key] for key in _CHAT[1:] if row.get(key) is not None}
        return Prompt(self.number, messages, None, answer, rest)

    def _preference(self, row: dict[str, Any]) -> Prompt:
        asked = row["input"]
        if not isinstance(asked, dict) or set(asked) - set(_CHAT):
            raise self.wrong("`input` is not an object with `messages`")
        messages = self._messages(asked.get("messages"), "input.messages")
        preferred = row.get("preferred_output")
        answer = self._messages(preferred, "preferred_output")[-1] if preferred else None
        rest = {key: asked[key] for key in _CHAT[1:] if asked.get(key) is not None}
        return Prompt(self.number, messages, None, answer, rest)

    def _messages(self, messages: Any, field: str) -> list[Message]:
        if not isinstance(messages, list) or not messages:
            raise self.wrong(f"`{field}` is not a list of messages")
        return [self._message(message, f"{field}[{index}]") for index, message in enumerate(messages)]

    def _message(self, message: Any, field: str) -> Message:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise self.wrong(f"`{field}` is not an object with `role` and `content`")
        unknown = [key for key, value in message.items() if key not in _MESSAGE and value not in (None, [], {})]
        if unknown:
            advice = f"remove it; known are {', '.join(_MESSAGE)}"
            raise self.wrong(f"`{field}.{one_line(unknown[0])}` is not known here", advice)
        content = message.get("content")
        if isinstance(content, list):
            content = self._joined(content, f"{field}.content")
        calls = message.get("tool_calls")
        if calls and not self._are_calls(calls):
            raise self.wrong(f"`{field}.tool_calls` is not a list of calls, each with a `function` that has a `name`")
        if not isinstance(content, str) and not (content is None and calls):
            raise self.wrong(f"`{field}.content` is not a text")
        kept = {key: message[key] for key in _MESSAGE if message.get(key) is not None}
        role = "system" if message["role"] == "developer" else message["role"]
        return kept | {"role": role, "content": content}

    def _joined(self, parts: list[Any], field: str) -> str:
        texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise self.wrong(f"`{field}[{index}]` is not a text, and nothing else is trained on here")
        return "".join(map(str, texts))

    def _are_calls(self, calls: Any) -> bool:
        return isinstance(calls, list) and all(
            isinstance(call, dict) and isinstance(call.get("function"), dict) and "name" in call["function"]
            for call in calls
        )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _parsed(arguments: Any) -> Any:
    try:
        return json.loads(arguments)
    except (TypeError, ValueError):
        return arguments
