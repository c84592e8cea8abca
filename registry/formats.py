"""What a line of training data may look like: JSON Lines of chats, of prompts and completions, or of preferences."""

import json
import sys
from typing import Any, Literal

from registry import strict_json
from registry.errors import InvalidFile
from registry.lines import Line, kind, quoted, short
from registry.strict_json import ConstantError, DuplicateKeyError
from registry.tool_formats import check_calls, check_result, check_together, check_tools

Format = Literal["chat", "completion", "preference"]

ROLES = ("system", "user", "assistant", "tool")
_CHAT_EXAMPLE = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
_ANSWER_EXAMPLE = '[{"role": "assistant", "content": "…"}]'
_PREFERENCE_EXAMPLE = (
    '{"input": {"messages": [{"role": "user", "content": "…"}]}, '
    f'"preferred_output": {_ANSWER_EXAMPLE}, "non_preferred_output": {_ANSWER_EXAMPLE}}}'
)
_COMPLETION_EXAMPLE = '{"prompt": "…", "completion": "…"}'


_OF_TOOLS = ("tools", "parallel_tool_calls")
_PREFERENCE_KEYS = {"input", "preferred_output", "non_preferred_output"}

_AS_TEXT = f"write each line as {_CHAT_EXAMPLE} or {_COMPLETION_EXAMPLE}"
# Rows that other tools read, by keys that they have all of, and what to write instead.
_FOREIGN = (
    ("Alpaca's format (`instruction`, `input`, `output`)", {"instruction", "output"}, _AS_TEXT),
    ("ShareGPT's format (`conversations`)", {"conversations"}, f"write each line as {_CHAT_EXAMPLE}"),
    (
        "TRL's preference format (`prompt`, `chosen`, `rejected`)",
        {"chosen", "rejected"},
        f"write each line as {_PREFERENCE_EXAMPLE}, for the method dpo",
    ),
    ("TRL's format of rated answers (`prompt`, `completion`, `label`)", {"prompt", "completion", "label"}, _AS_TEXT),
    ("the format of plain text (`text`)", {"text"}, _AS_TEXT),
)


def check_line(raw: bytes, number: int) -> Format:
    """The format of one line of JSON Lines. Raises `InvalidFile` with the line's number and field."""
    row = _parse(raw, number)
    line = Line(number)
    if not isinstance(row, dict):
        line.reject(None, f"must be a JSON object, not {kind(row)}", f"write each line as {_CHAT_EXAMPLE}")
    _refuse_foreign(line, row)
    if "messages" in row:
        line.only(row, "", ("messages", *_OF_TOOLS))
        tools = check_tools(line, row, "")
        _check_chat(line, row["messages"])
        check_together(line, row["messages"], "messages", tools)
        return "chat"
    if "prompt" in row or "completion" in row:
        line.only(row, "", ("prompt", "completion"))
        line.text(row, "", "prompt", "the text to complete")
        if line.text(row, "", "completion", "the text to learn") == "":
            line.reject("completion", "is empty, so there is nothing to learn", "give it text or remove the line")
        return "completion"
    if _PREFERENCE_KEYS & row.keys():
        line.only(row, "", tuple(sorted(_PREFERENCE_KEYS)))
        _check_preference(line, row)
        return "preference"
    line.reject(
        None,
        f"has neither `messages` nor `prompt` and `completion`; its keys are {quoted(sorted(row))}",
        _AS_TEXT,
    )


def _refuse_foreign(line: Line, row: dict[str, Any]) -> None:
    """A row of a format that is known and not read is told so at once, not key by key."""
    for name, keys, next_action in _FOREIGN:
        if keys <= row.keys() and "messages" not in row:
            line.reject(None, f"is in {name}, which is not read here", next_action)


def _check_chat(line: Line, messages: Any) -> None:
    if not _check_messages(line, messages, "messages", _CHAT_EXAMPLE):
        line.reject(
            "messages",
            "has no assistant message to learn from (one with text, and a weight other than 0)",
            'add one: {"role": "assistant", "content": "…"}',
        )


def _check_messages(line: Line, messages: Any, path: str, example: str) -> bool:
    """Whether there is something to learn in these messages, which are well formed."""
    if not isinstance(messages, list) or not messages:
        line.reject(path, f"must be a list with a message in it, not {kind(messages)}", example)
    learns = False
    for index, message in enumerate(messages):
        place = f"{path}[{index}]"
        if not isinstance(message, dict):
            line.reject(place, f"must be an object with `role` and `content`, not {kind(message)}", example)
        role = message.get("role")
        if role == "function":
            line.refuse_old(f"{place}.role")
        if role not in ROLES:
            line.reject(f"{place}.role", f"is {quoted(role)}", f"use one of {', '.join(ROLES)}")
        line.only(message, f"{place}.", ("role", "content", "tool_calls", "tool_call_id", "weight"))
        calls = check_calls(line, message, place)
        check_result(line, message, place)
        if isinstance(message.get("content"), list):
            line.reject(
                f"{place}.content",
                "is a list of OpenAI's content parts, and only text is read here",
                "write the text as one JSON string",
            )
        silent = calls and message.get("content") is None
        content = "" if silent else line.text(message, f"{place}.", "content", "the message's text")
        learns |= _weight(line, message, place) != 0 and role == "assistant" and (calls or content != "")
    return learns


def _check_preference(line: Line, row: dict[str, Any]) -> None:
    for key in sorted(_PREFERENCE_KEYS):
        if key not in row:
            line.reject(key, "is missing", f"write each line as {_PREFERENCE_EXAMPLE}")
    asked = row["input"]
    if not isinstance(asked, dict):
        line.reject("input", f"must be an object with `messages`, not {kind(asked)}", _PREFERENCE_EXAMPLE)
    line.only(asked, "input.", ("messages", *_OF_TOOLS))
    tools = check_tools(line, asked, "input.")
    _check_messages(line, asked.get("messages"), "input.messages", _PREFERENCE_EXAMPLE)
    for key in ("preferred_output", "non_preferred_output"):
        learns = _check_messages(line, row[key], key, _ANSWER_EXAMPLE)
        if len(row[key]) != 1 or not learns:
            line.reject(key, "must be one assistant message with text or calls", f"write {_ANSWER_EXAMPLE}")
    for key in ("preferred_output", "non_preferred_output"):
        _check_answer(line, row, key, tools)
    if _said(row["preferred_output"][0]) == _said(row["non_preferred_output"][0]):
        line.reject("non_preferred_output", "is the same answer as the preferred one", "remove the line")


def _check_answer(line: Line, row: dict[str, Any], key: str, tools: set[str]) -> None:
    asked = row["input"]["messages"]
    check_together(line, asked, "input.messages", tools)
    check_together(line, row[key], key, tools)


def _said(message: dict[str, Any]) -> tuple[str, Any]:
    """What an answer says and calls, whatever the ids of its calls are."""
    return message.get("content") or "", [call["function"] for call in message.get("tool_calls") or ()]


def _weight(line: Line, message: dict[str, Any], path: str) -> int:
    if "weight" not in message:
        return 1
    weight = message["weight"]
    if message["role"] != "assistant":
        line.reject(f"{path}.weight", "is only for assistant messages", "remove it")
    if type(weight) is not int or weight not in (0, 1):  # True == 1, and is not a weight
        line.reject(f"{path}.weight", f"is {quoted(weight)}", "use 0 (not learned) or 1 (learned)")
    return weight


def _parse(raw: bytes, number: int) -> Any:
    try:
        return strict_json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} is not UTF-8"
        raise InvalidFile(problem, line=number, next_action="save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg.removesuffix(' at')} at character {error.colno}"
        next_action = "put one complete JSON object on each line"
        raise InvalidFile(problem, line=number, next_action=next_action) from error
    except DuplicateKeyError as error:
        raise InvalidFile(
            f"the key {quoted(error.key)} comes twice in one object",
            line=number,
            field=short(error.key),
            next_action="keep one of the two: JSON readers drop the other without a word",
        ) from error
    except ConstantError as error:
        problem = f"is not usable JSON: {error} is not a JSON value"
        raise InvalidFile(problem, line=number, next_action="write plain strings and small numbers") from error
    except RecursionError as error:
        problem = "is not usable JSON: it is nested too deeply"
        raise InvalidFile(problem, line=number, next_action="write plain strings and small numbers") from error
    except ValueError as error:  # of Python's own: it reads no integers that are longer
        problem = f"is not usable JSON: it has a number of more than {sys.get_int_max_str_digits()} digits"
        raise InvalidFile(problem, line=number, next_action="write plain strings and small numbers") from error
