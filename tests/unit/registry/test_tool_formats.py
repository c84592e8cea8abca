"""Lines of training data with tools."""

import json
from typing import Any

import pytest

from registry.errors import InvalidFile
from registry.formats import check_line

USER = {"role": "user", "content": "Where is order 7?"}
PARAMETERS = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS}}
DONE = {"role": "assistant", "content": "It is in Oslo."}


def call(id_: str = "a", name: str = "look_up", arguments: str = '{"order": 7}') -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(made), **more}


def result(id_: str = "a") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": "Oslo"}


def line(*messages: dict[str, Any], **row: Any) -> bytes:
    return json.dumps({"messages": list(messages), "tools": [TOOL], **row}).encode()


def function(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {**TOOL["function"], **changes}}


@pytest.mark.parametrize(
    "row",
    [
        line(USER, calls(call())),
        line(USER, calls(call()), result(), DONE, parallel_tool_calls=False),
        line(USER, calls(call("a"), call("b")), result("b"), result("a"), DONE),
        line(USER, calls(call(), content="Let me see.", weight=1), result(), DONE | {"weight": 0}),
        line(USER, DONE),
        line(USER, DONE, tools=[]),
        line(USER, DONE, tools=None),
        line(
            USER, calls(call(name="close", arguments="{}")), tools=[{"type": "function", "function": {"name": "close"}}]
        ),
        line(USER, DONE, tools=[function(description="x", strict=True)]),
    ],
)
def test_accepts(row: bytes) -> None:
    assert check_line(row, 1) == "chat"


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        (line(USER, DONE, tools={}), "tools", "must be a list"),
        (line(USER, DONE, tools=["x"]), "tools[0]", "must be an object, not a string"),
        (line(USER, DONE, tools=[{"type": "retrieval"}]), "tools[0].type", '"retrieval"'),
        (line(USER, DONE, tools=[{"type": "function"}]), "tools[0].function", "is missing"),
        (line(USER, DONE, tools=[{"type": "function", "name": "x"}]), "tools[0].name", "is not known"),
        (line(USER, DONE, tools=[function(name="a b")]), "tools[0].function.name", '"a b"'),
        (line(USER, DONE, tools=[function(name="")]), "tools[0].function.name", '""'),
        (line(USER, DONE, tools=[function(parameters=[])]), "tools[0].function.parameters", "an empty list"),
        (line(USER, DONE, tools=[function(parameters={"type": "string"})]), "tools[0].function.parameters.type",
         '"string"'),
        (line(USER, DONE, tools=[TOOL, TOOL]), "tools[1].function.name", "like another"),
        (line(USER, DONE, tools=[function(name=f"f{i}") for i in range(200)]), "tools", "has 200 tools"),
        (line(USER, DONE, tools=[function(description="x" * 200_000)]), "tools", "at most 131072 are read"),
        (line(USER, DONE, tools=[function(parameters={"x": "\ud800"})]), "tools", "surrogate"),
        (line(USER, DONE, parallel_tool_calls=1), "parallel_tool_calls", "not a number"),
        (line(USER, calls()), "messages[1].tool_calls", "an empty list"),
        (line(USER | {"tool_calls": [call()]}, DONE), "messages[0].tool_calls", "only for assistant"),
        (line(USER | {"tool_call_id": "a"}, DONE), "messages[0].tool_call_id", "only for messages of the role tool"),
        (line(USER, calls({"type": "function"})), "messages[1].tool_calls[0].id", "is missing"),
        (line(USER, calls(call(arguments='{"order": 7'))), "messages[1].tool_calls[0].function.arguments", "not JSON"),
        (line(USER, calls(call(arguments="[7]"))), "messages[1].tool_calls[0].function.arguments", "not the JSON of"),
        (line(USER, calls(call(arguments='{"a": NaN}'))), "messages[1].tool_calls[0].function.arguments", "NaN"),
        (line(USER, calls(call(arguments='{"a":1,"a":2}'))), "messages[1].tool_calls[0].function.arguments", "twice"),
        (line(USER, calls(call(arguments={"order": 7}))), "messages[1].tool_calls[0].function.arguments",  # type: ignore[arg-type]
         "must be a string, not an object"),
        (line(USER, calls(call(name="other"))), "messages[1].tool_calls[0].function.name", "none of the line's tools"),
        (line(USER, calls(call()), tools=None), "messages[1].tool_calls[0].function.name", "none of the line's tools"),
        (line(USER, calls(call(), call())), "messages[1].tool_calls[1].id", "like another"),
        (line(USER, calls(call()), DONE), "messages[2]", 'before the results of the calls "a"'),
        (line(USER, calls(call("a"), call("b")), result("a"), DONE), "messages[3]", 'the calls "b"'),
        (line(USER, calls(call()), result("b"), DONE), "messages[2].tool_call_id", '"b"'),
        (line(USER, calls(call()), result(), result(), DONE), "messages[3].tool_call_id", "no call before it"),
        (line(USER, calls(call()), {"role": "tool", "content": "x"}, DONE), "messages[2].tool_call_id", "is missing"),
        (line(USER, {"role": "assistant"}), "messages[1].content", "is missing"),
    ],
)  # fmt: skip
def test_refuses(row: bytes, field: str, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        check_line(row, 7)
    assert (caught.value.line, caught.value.field) == (7, field)
    assert message in caught.value.message
    assert caught.value.next_action


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(InvalidFile, match="nested more than 64 levels"):
        check_line(line(USER, DONE, tools=[function(parameters=deep)]), 1)


def test_preferences_may_be_about_calls() -> None:
    row = {
        "input": {"messages": [USER], "tools": [TOOL]},
        "preferred_output": [calls(call())],
        "non_preferred_output": [calls(call(arguments='{"order": 8}'))],
    }
    assert check_line(json.dumps(row).encode(), 1) == "preference"
    row["non_preferred_output"] = [calls(call("b"))]
    with pytest.raises(InvalidFile, match="is the same answer"):
        check_line(json.dumps(row).encode(), 1)
    row["non_preferred_output"] = [calls(call(name="other"))]
    with pytest.raises(InvalidFile, match="none of the line's tools"):
        check_line(json.dumps(row).encode(), 1)
