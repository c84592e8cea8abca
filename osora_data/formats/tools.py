"""What tools and calls of them may look like in a row."""

import json
import re
from collections.abc import Mapping
from typing import Any

from osora_data.formats.examples import CALL, TOOL
from osora_data.formats.row_check import RowCheck
from osora_data.tool_calls import find_flaw, tree_problem
from osora_data.words import kind, quoted

_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
_TOOL_KEYS = frozenset(("type", "function"))
_FUNCTION_KEYS = frozenset(("name", "description", "parameters", "strict"))
_CALL_KEYS = frozenset(("id", "type", "function", "index"))
_CALLED_KEYS = frozenset(("name", "arguments"))
_MOST = 128
_MOST_BYTES = 128 * 1024


def read_tools(check: RowCheck, row: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], set[str]]:
    """A row's `tools` and `parallel_tool_calls`, as far as it has them and they say something; and the tools' names.

    `functions`, their older form, become tools.
    """
    found: dict[str, Any] = {}
    parallel = row.get("parallel_tool_calls")
    if parallel is not None:
        if not isinstance(parallel, bool):
            problem = f"must be true or false, not {kind(parallel)}"
            check.reject(f"{prefix}parallel_tool_calls", problem, "correct or remove it", parallel)
        found["parallel_tool_calls"] = parallel
    tools, path = row.get("tools"), f"{prefix}tools"
    if row.get("functions"):
        if tools:
            check.reject(f"{prefix}functions", "is there beside `tools`, whose older form it is", "keep `tools`")
        tools, path = _from_functions(check, row["functions"], f"{prefix}functions"), f"{prefix}functions"
    if tools is None or tools == []:
        return found, set()
    names = _check_tools(check, tools, path)
    return {"tools": tools, **found}, names


def _from_functions(check: RowCheck, functions: Any, path: str) -> list[Any]:
    if not isinstance(functions, list):
        check.reject(path, f"must be a list, not {kind(functions)}", f"write `tools`, each as {TOOL}", functions)
    check.note("`functions` were read as `tools`")
    return [{"type": "function", "function": function} for function in functions]


def _check_tools(check: RowCheck, tools: Any, path: str) -> set[str]:
    if not isinstance(tools, list):
        action = f"write each as {TOOL}, or remove it"
        check.reject(path, f"must be a list of tools, not {kind(tools)}", action, tools)
    if len(tools) > _MOST:
        check.reject(path, f"has {len(tools)} tools, and at most {_MOST} are read", "leave some out")
    if (problem := tree_problem(tools)) is not None:
        check.reject(path, problem, "write a plainer schema")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        name = _check_tool(check, tool, f"{path}[{index}]")
        if name in names:
            place = f"{path}[{index}].function.name"
            check.reject(place, f"is {quoted(name)}, like another tool's", "rename one of them", name)
        names.add(name)
    if (size := len(json.dumps(tools, ensure_ascii=False).encode())) > _MOST_BYTES:
        check.reject(path, f"has {size} bytes, and at most {_MOST_BYTES} are read", "shorten descriptions and schemas")
    return names


def _check_tool(check: RowCheck, tool: Any, path: str) -> str:
    if not isinstance(tool, dict):
        check.reject(path, f"must be an object, not {kind(tool)}", f"write it as {TOOL}", tool)
    check.ignore_others(tool, f"{path}.", _TOOL_KEYS, " of tools")
    function = _function(check, tool, path, TOOL)
    check.ignore_others(function, f"{path}.function.", _FUNCTION_KEYS, " of functions")
    if function.get("description") is not None:
        check.text(function, f"{path}.function.", "description", "what the function does")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        problem = f"must be the JSON schema of an object, not {kind(parameters)}"
        action = 'write {"type": "object", "properties": {…}}'
        check.reject(f"{path}.function.parameters", problem, action, parameters)
    if parameters and parameters.get("type", "object") != "object":
        problem = f"is {quoted(parameters['type'])}: arguments are an object"
        check.reject(f"{path}.function.parameters.type", problem, 'write "object"', parameters["type"])
    if not isinstance(function.get("strict"), bool | None):
        check.reject(f"{path}.function.strict", "must be true or false", "correct or remove it", function.get("strict"))
    return _name(check, function, f"{path}.function")


def read_calls(check: RowCheck, message: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    """An assistant's calls of tools, each well formed by itself; empty where it makes none."""
    calls = message.get("tool_calls")
    if calls is None or calls == []:
        return []
    if message["role"] != "assistant":
        check.reject(f"{path}.tool_calls", "is only for assistant messages", "remove it", calls)
    if not isinstance(calls, list):
        action = f"write each as {CALL}"
        check.reject(f"{path}.tool_calls", f"must be a list of calls, not {kind(calls)}", action, calls)
    if len(calls) > _MOST:
        check.reject(f"{path}.tool_calls", f"has {len(calls)} calls, and at most {_MOST} are read", "leave some out")
    return [_call(check, call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls)]


def _call(check: RowCheck, call: Any, place: str) -> dict[str, Any]:
    if not isinstance(call, dict):
        check.reject(place, f"must be an object, not {kind(call)}", f"write it as {CALL}", call)
    check.ignore_others(call, f"{place}.", _CALL_KEYS, " of calls")
    id_ = check.text(call, f"{place}.", "id", "the id that its result names")
    return call_of(check, _function(check, call, place, CALL), f"{place}.function", id_)


def call_of(check: RowCheck, function: dict[str, Any], path: str, id_: str) -> dict[str, Any]:
    """A call of the function that is described at this path. Arguments that are an object become its JSON text."""
    check.ignore_others(function, f"{path}.", _CALLED_KEYS, " of calls' functions")
    name = _name(check, function, path)
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        if (problem := tree_problem(arguments)) is not None:
            check.reject(f"{path}.arguments", problem, "write plain strings and small numbers")
        check.note("arguments that are an object were read as its JSON text")
        arguments = json.dumps(arguments, ensure_ascii=False)
    else:
        arguments = check.text(function, f"{path}.", "arguments", "the JSON text of the arguments")
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def check_together(check: RowCheck, messages: list[dict[str, Any]], path: str, tools: set[str]) -> None:
    """Calls are of the row's tools, and have their results."""
    flaw = find_flaw(messages, path, known=tools, is_asked=False)
    if flaw is not None:
        check.reject(flaw.field, flaw.problem, flaw.next_action)


def _function(check: RowCheck, owner: dict[str, Any], path: str, example: str) -> dict[str, Any]:
    if owner.get("type", "function") != "function":
        problem = f"is {quoted(owner['type'])}, and all tools are functions"
        check.reject(f"{path}.type", problem, 'write "function"', owner["type"])
    function = owner.get("function")
    if not isinstance(function, dict):
        problem = "is missing" if "function" not in owner else f"must be an object, not {kind(function)}"
        check.reject(f"{path}.function", problem, f"write {example}")
    return function


def _name(check: RowCheck, function: dict[str, Any], path: str) -> str:
    name = check.text(function, f"{path}.", "name", "the function's name")
    if not _NAME.fullmatch(name):
        problem = f"is {quoted(name)}, and names are 1 to 64 letters, digits, _ and -"
        check.reject(f"{path}.name", problem, "rename it", name)
    return name
