"""What tools and calls of them may look like in a line of training data."""

import json
import re
from collections.abc import Mapping
from typing import Any

from registry.lines import Line, kind, quoted
from registry.tool_calls import find_flaw, tree_problem

_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
_MOST = 128
_MOST_BYTES = 128 * 1024
_EXAMPLE = '{"type": "function", "function": {"name": "…", "description": "…", "parameters": {"type": "object", …}}}'
_CALL_EXAMPLE = '{"id": "call_1", "type": "function", "function": {"name": "…", "arguments": "{…}"}}'


def check_tools(line: Line, row: Mapping[str, Any], prefix: str) -> set[str]:
    """The names of a row's `tools`, which are well formed."""
    tools = row.get("tools")
    parallel = row.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        line.reject(
            f"{prefix}parallel_tool_calls", f"must be true or false, not {kind(parallel)}", "correct or remove it"
        )
    if tools is None or tools == []:
        return set()
    path = f"{prefix}tools"
    if not isinstance(tools, list):
        line.reject(path, f"must be a list of tools, not {kind(tools)}", f"write each as {_EXAMPLE}, or remove it")
    if len(tools) > _MOST:
        line.reject(path, f"has {len(tools)} tools, and at most {_MOST} are read", "leave some out")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        name = _check_tool(line, tool, f"{path}[{index}]")
        if name in names:
            line.reject(
                f"{path}[{index}].function.name", f"is {quoted(name)}, like another tool's", "rename one of them"
            )
        names.add(name)
    if (problem := tree_problem(tools)) is not None:
        line.reject(path, problem, "write a plainer schema")
    if (size := len(json.dumps(tools, ensure_ascii=False).encode())) > _MOST_BYTES:
        line.reject(path, f"has {size} bytes, and at most {_MOST_BYTES} are read", "shorten descriptions and schemas")
    return names


def _check_tool(line: Line, tool: Any, path: str) -> str:
    if not isinstance(tool, dict):
        line.reject(path, f"must be an object, not {kind(tool)}", f"write it as {_EXAMPLE}")
    line.only(tool, f"{path}.", ("type", "function"))
    function = _function(line, tool, path, _EXAMPLE)
    line.only(function, f"{path}.function.", ("name", "description", "parameters", "strict"))
    if function.get("description") is not None:
        line.text(function, f"{path}.function.", "description", "what the function does")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        problem = f"must be the JSON schema of an object, not {kind(parameters)}"
        line.reject(f"{path}.function.parameters", problem, 'write {"type": "object", "properties": {…}}')
    if parameters and parameters.get("type", "object") != "object":
        problem = f"is {quoted(parameters['type'])}: arguments are an object"
        line.reject(f"{path}.function.parameters.type", problem, 'write "object"')
    if not isinstance(function.get("strict"), bool | None):
        line.reject(f"{path}.function.strict", "must be true or false", "correct or remove it")
    return _name(line, function, path)


def check_calls(line: Line, message: Mapping[str, Any], path: str) -> bool:
    """Whether an assistant's message calls tools; the calls are well formed each by itself."""
    calls = message.get("tool_calls")
    if calls is None:
        return False
    if message["role"] != "assistant":
        line.reject(f"{path}.tool_calls", "is only for assistant messages", "remove it")
    if not isinstance(calls, list) or not calls:
        line.reject(
            f"{path}.tool_calls", f"must be a list of calls, not {kind(calls)}", f"write each as {_CALL_EXAMPLE}"
        )
    if len(calls) > _MOST:
        line.reject(f"{path}.tool_calls", f"has {len(calls)} calls, and at most {_MOST} are read", "leave some out")
    for index, call in enumerate(calls):
        place = f"{path}.tool_calls[{index}]"
        if not isinstance(call, dict):
            line.reject(place, f"must be an object, not {kind(call)}", f"write it as {_CALL_EXAMPLE}")
        line.only(call, f"{place}.", ("id", "type", "function"))
        line.text(call, f"{place}.", "id", "the id that its result names")
        function = _function(line, call, place, _CALL_EXAMPLE)
        line.only(function, f"{place}.function.", ("name", "arguments"))
        _name(line, function, place)
        line.text(function, f"{place}.function.", "arguments", "the JSON text of the arguments")
    return True


def check_result(line: Line, message: dict[str, Any], path: str) -> None:
    """A result names its call by a string, and nothing else does."""
    if message.get("tool_call_id") is None:
        return
    if message["role"] != "tool":
        line.reject(f"{path}.tool_call_id", "is only for messages of the role tool", "remove it")
    line.text(message, f"{path}.", "tool_call_id", "the id of the call")


def check_together(line: Line, messages: list[dict[str, Any]], path: str, tools: set[str]) -> None:
    """Calls are of the line's tools, and have their results."""
    flaw = find_flaw(messages, path, known=tools, is_asked=False)
    if flaw is not None:
        line.reject(flaw.field, flaw.problem, flaw.next_action)


def _function(line: Line, owner: dict[str, Any], path: str, example: str) -> dict[str, Any]:
    if owner.get("type", "function") != "function":
        line.reject(f"{path}.type", f"is {quoted(owner['type'])}, and all tools are functions", 'write "function"')
    function = owner.get("function")
    if not isinstance(function, dict):
        problem = "is missing" if "function" not in owner else f"must be an object, not {kind(function)}"
        line.reject(f"{path}.function", problem, f"write {example}")
    return function


def _name(line: Line, function: dict[str, Any], path: str) -> str:
    name = line.text(function, f"{path}.function.", "name", "the function's name")
    if not _NAME.fullmatch(name):
        problem = f"is {quoted(name)}, and names are 1 to 64 letters, digits, _ and -"
        line.reject(f"{path}.function.name", problem, "rename it")
    return name
