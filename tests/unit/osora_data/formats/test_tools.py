"""Lines of training data with tools."""

import json
from typing import Any

import pytest

from osora_data import Problem
from tests.support.training_files import read_all, values

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


def refused(row: bytes) -> Problem:
    """The problem of the last line."""
    checked, _ = read_all(line(USER, DONE) + b"\n" + row)
    assert (checked.rows, checked.problem_count, checked.problems[0].line) == (1, 1, 2)
    return checked.problems[0]


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
    (value,) = values(row)
    assert value["messages"] == json.loads(row)["messages"]
    assert value.get("tools", []) == (json.loads(row)["tools"] or [])


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        (line(USER, DONE, tools={}), "tools", "must be a list"),
        (line(USER, DONE, tools=["x"]), "tools[0]", "must be an object, not a string"),
        (line(USER, DONE, tools=[{"type": "retrieval"}]), "tools[0].type", '"retrieval"'),
        (line(USER, DONE, tools=[{"type": "function"}]), "tools[0].function", "is missing"),
        (line(USER, DONE, tools=[{"type": "function", "name": "x"}]), "tools[0].function", "is missing"),
        (line(USER, DONE, tools=[{"type": "function", "fuction": {}}]), "tools[0].fuction", "is not known"),
        (line(USER, DONE, tools=[function(name="a b")]), "tools[0].function.name", '"a b"'),
        (line(USER, DONE, tools=[function(name="")]), "tools[0].function.name", '""'),
        (line(USER, DONE, tools=[function(parameters=[])]), "tools[0].function.parameters", "an empty list"),
        (line(USER, DONE, tools=[function(parameters={"type": "string"})]), "tools[0].function.parameters.type",
         '"string"'),
        (line(USER, DONE, tools=[TOOL, TOOL]), "tools[1].function.name", "like another"),
        (line(USER, DONE, tools=[function(name=f"f{i}") for i in range(200)]), "tools", "has 200 tools"),
        (line(USER, DONE, tools=[function(description="x" * 200_000)]), "tools", "at most 131072 are read"),
        (line(USER, DONE, tools=[function(parameters={"x": "\ud800"})]), "tools[0].function.parameters.x", "surrogate"),
        (line(USER, DONE, parallel_tool_calls=1), "parallel_tool_calls", "not a number"),
        (line(USER | {"tool_calls": [call()]}, DONE), "messages[0].tool_calls", "only for assistant"),
        (line(USER | {"tool_call_id": "a"}, DONE), "messages[0].tool_call_id", "only for messages of the role tool"),
        (line(USER, calls({"type": "function"})), "messages[1].tool_calls[0].id", "is missing"),
        (line(USER, calls(call(arguments='{"order": 7'))), "messages[1].tool_calls[0].function.arguments", "not JSON"),
        (line(USER, calls(call(arguments="[7]"))), "messages[1].tool_calls[0].function.arguments", "not the JSON of"),
        (line(USER, calls(call(arguments='{"a": NaN}'))), "messages[1].tool_calls[0].function.arguments", "NaN"),
        (line(USER, calls(call(arguments='{"a":1,"a":2}'))), "messages[1].tool_calls[0].function.arguments", "twice"),
        (line(USER, calls(call(arguments=7))), "messages[1].tool_calls[0].function.arguments",  # type: ignore[arg-type]
         "must be a string, not a number"),
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
    problem = refused(row)
    assert problem.field == field
    assert message in problem.problem
    assert problem.next_action


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    assert "nested more than 64 levels" in refused(line(USER, DONE, tools=[function(parameters=deep)])).problem


def test_preferences_may_be_about_calls() -> None:
    row = {
        "input": {"messages": [USER], "tools": [TOOL]},
        "preferred_output": [calls(call())],
        "non_preferred_output": [calls(call(arguments='{"order": 8}'))],
    }
    assert values(json.dumps(row).encode()) == [row]
    for changed, problem in (
        (calls(call("b")), "is the same answer"),
        (calls(call(name="other")), "none of the line's"),
    ):
        row["non_preferred_output"] = [changed]
        checked, _ = read_all(json.dumps(row).encode())
        assert problem in checked.problems[0].problem


@pytest.mark.parametrize(
    ("row", "expected", "note"),
    [
        (line(USER, DONE | {"tool_calls": []}), [USER, DONE], None),
        (line(USER, DONE | {"tool_calls": None, "refusal": None}), [USER, DONE], None),
        (
            line(USER, calls(call() | {"index": 0}, audio=None)),
            [USER, calls(call())],
            None,
        ),
        (
            line(USER, calls(call(arguments={"order": 7}))),  # type: ignore[arg-type]
            [USER, calls(call())],
            "arguments that are an object were read as its JSON text",
        ),
        (line(USER, calls(call() | {"cost": 1})), [USER, calls(call())], "`cost` of calls is ignored"),
    ],
)
def test_what_other_tools_write_of_calls_is_read(row: bytes, expected: list[Any], note: str | None) -> None:
    checked, rows = read_all(row)
    assert [one.value["messages"] for one in rows] == [expected], checked.problems
    assert [one["message"] for one in checked.notes] == ([note] if note else [])


OLDER = {"role": "assistant", "content": None, "function_call": {"name": "look_up", "arguments": '{"order": 7}'}}


def test_the_older_form_becomes_tools() -> None:
    asked = [USER, OLDER, {"role": "function", "name": "look_up", "content": "Oslo"}, DONE]
    row = {"messages": asked, "functions": [TOOL["function"]], "function_call": "auto"}
    checked, rows = read_all(json.dumps(row).encode())
    assert [one.value for one in rows] == [
        {"messages": [USER, calls(call("call_1")), result("call_1"), DONE], "tools": [TOOL]}
    ]
    assert len(checked.notes) == 3


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([USER, OLDER | {"function_call": {}}], "messages[1].function_call.name"),
        ([USER, OLDER | {"function_call": "x"}], "messages[1].function_call"),
        ([USER | {"function_call": {"name": "look_up", "arguments": "{}"}}], "messages[0].function_call"),
        ([USER, OLDER, {"role": "function", "name": "other", "content": "Oslo"}], "messages[2].name"),
        ([USER, OLDER, DONE], "messages[2]"),
        ([USER, calls(call()) | {"function_call": OLDER["function_call"]}], "messages[1].function_call"),
    ],
)
def test_the_older_form_is_checked_as_the_newer(messages: list[Any], field: str) -> None:
    assert refused(line(*messages)).field == field


def test_a_long_integer_of_a_schema_stays_what_it_is() -> None:
    tool = function(parameters={"type": "object", "properties": {"n": {"maximum": 2**70}}})
    (value,) = values(line(USER, DONE, tools=[tool]))
    assert value["tools"] == [tool]
