"""Messages and tools as OpenAI shapes them, as chat templates take them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osora_core.errors import UserError
from osora_core.tools.arguments import NO_ARGUMENTS, ordered
from osora_core.tools.format import CallFormat, call_id

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Transcript:
    """A conversation as a chat template takes it; `origins`: which message each of them comes from."""

    messages: Messages
    tools: Tools | None
    origins: Sequence[int]


def plain(messages: Messages) -> Transcript:
    """A conversation without tools, as it is."""
    return Transcript(messages, None, range(len(messages)))


def has_tools(messages: Messages, tools: Tools | None) -> bool:
    """Whether there is a tool in a conversation, or what comes of one."""
    return bool(tools) or any(message.get("tool_calls") or message.get("tool_call_id") for message in messages)


def described(tools: Tools | None) -> list[dict[str, Any]]:
    """Tools with all that templates look for, and nothing else."""
    functions = [tool["function"] for tool in tools or ()]
    return [
        {
            "type": "function",
            "function": {
                "name": function["name"],
                "description": function.get("description") or "",
                "parameters": function.get("parameters") or NO_ARGUMENTS,
            },
        }
        for function in functions
    ]


def for_template(messages: Messages, tools: Tools | None, format: CallFormat, *, arguments_as_text: bool) -> Transcript:
    """For a template that shows tools. Raises UserError for what it would leave out."""
    tools = described(tools)
    schemas = _schemas(tools)
    answered: dict[str, tuple[str, str]] = {}
    count = 0
    found: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        calls = message.get("tool_calls")
        rest = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
        rest["content"] = message.get("content") or ""
        if calls:
            check_calls(message, index, format)
            rest["tool_calls"] = []
            for call in calls:
                name, arguments = read(call, schemas, index)
                answered[call["id"]] = call_id(count), name
                written = format.dump(arguments) if arguments_as_text else arguments
                function = {"name": name, "arguments": written}
                rest["tool_calls"].append({"id": call_id(count), "type": "function", "function": function})
                count += 1
        elif message.get("tool_call_id"):
            rest["tool_call_id"], rest["name"] = _answered(answered, message, index)
        found.append(rest)
    return Transcript(found, tools or None, range(len(found)))


def read(call: Mapping[str, Any], schemas: Mapping[str, Any], index: int) -> tuple[str, Any]:
    """A call's name, and its arguments in the order of their schema."""
    name = call["function"]["name"]
    try:
        arguments = json.loads(call["function"]["arguments"])
    except (ValueError, RecursionError) as error:
        arguments = error
    if not isinstance(arguments, dict):
        raise UserError(
            f"the arguments of a call of {name!r} are not the JSON text of an object",
            param=f"messages.{index}.tool_calls",
            next_action='write them as a string like "{}"',
        )
    return name, ordered(arguments, schemas.get(name))


def check_calls(message: Mapping[str, Any], index: int, format: CallFormat) -> None:
    """Raises UserError for calls that cannot be written in this format."""
    if format.between is None and len(message["tool_calls"]) > 1:
        raise UserError(
            "the base's chat template shows one call in a message",
            param=f"messages.{index}.tool_calls",
            next_action="put each call into a message of its own, with its result behind it",
        )
    if format.gap is None and message.get("content"):
        raise UserError(
            "the base's chat template shows no text beside calls",
            param=f"messages.{index}.content",
            next_action="leave out the text, or put it into a message of its own",
        )


def schemas_of(tools: Tools | None) -> dict[str, Any]:
    """The schema of each tool's arguments, by its name."""
    return _schemas(described(tools))


def _schemas(tools: Tools) -> dict[str, Any]:
    return {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}


def _answered(answered: Mapping[str, tuple[str, str]], message: Mapping[str, Any], index: int) -> tuple[str, str]:
    found = answered.get(message["tool_call_id"])
    if found is None:
        raise UserError(
            f"no call before it has the id {message['tool_call_id']!r}",
            param=f"messages.{index}.tool_call_id",
            next_action="name the call that this is the result of",
        )
    return found
