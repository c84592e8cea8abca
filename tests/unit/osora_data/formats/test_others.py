"""Rows of other tools, and what becomes of them."""

import json
from typing import Any

import pytest

from tests.support.training_files import read_all, values

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}
OTHER = {"role": "assistant", "content": "go away"}
SYSTEM = {"role": "system", "content": "Be kind."}
PREFERENCE = {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [OTHER]}
CALL = {"name": "look_up", "arguments": {"order": 7}}
FUNCTION = {"name": "look_up", "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}}}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 7}'}}],
}
RESULT = {"role": "tool", "content": "Oslo", "tool_call_id": "call_1"}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"instruction": "hi", "output": "hello"}, [USER, ASSISTANT]),
        ({"instruction": "hi", "input": "", "output": "hello", "text": "both"}, [USER, ASSISTANT]),
        ({"instruction": "", "input": "hi", "output": "hello"}, [USER, ASSISTANT]),
        ({"instruction": "Say", "input": "hi", "output": "hello"},
         [{"role": "user", "content": "Say\nhi"}, ASSISTANT]),
        ({"instruction": "hi", "output": "hello", "system": "Be kind.", "history": [["hi", "hello"]]},
         [SYSTEM, USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT]),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, [USER, ASSISTANT]),
        ({"conversations": [{"from": "user", "value": "hi"}, {"from": "assistant", "value": "hello", "weight": 1}],
          "system": "Be kind.", "id": 7}, [SYSTEM, USER, ASSISTANT | {"weight": 1}]),
        ({"conversations": [USER, ASSISTANT], "tools": ""}, [USER, ASSISTANT]),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "function_call", "value": json.dumps(CALL)},
                            {"from": "observation", "value": "Oslo"}, {"from": "gpt", "value": "hello"}],
          "tools": json.dumps([FUNCTION])}, [USER, CALLED, RESULT, ASSISTANT]),
    ],
)  # fmt: skip
def test_rows_of_alpaca_and_sharegpt_become_chats(row: dict[str, Any], messages: list[Any]) -> None:
    checked, rows = read_all(json.dumps(row).encode())
    assert checked.problems == []
    assert (checked.format, rows[0].value["messages"]) == ("chat", messages)
    assert any("read as chats" in note["message"] for note in checked.notes)
    if CALLED in messages:
        assert rows[0].value["tools"] == [{"type": "function", "function": FUNCTION}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "chosen": "hello", "rejected": "go away"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [OTHER]},
        {"prompt": [USER], "chosen": ASSISTANT, "rejected": OTHER},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]},
        {"prompt": "hi", "prompt_id": "x", "messages": [], "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]},
        {"prompt": [USER], "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER], "score_chosen": 0.5},
        {"instruction": "hi", "input": "", "chosen": "hello", "rejected": "go away"},
    ],
)
def test_pairs_become_preferences(row: dict[str, Any]) -> None:
    assert values(json.dumps(row).encode()) == [PREFERENCE]


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({"instruction": "a"}, "output", "is missing"),
        ({"instruction": "a", "output": ""}, "output", "is empty"),
        ({"instruction": "a", "output": 1}, "output", "must be a string"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "history[0]", "a question and an answer"),
        ({"instruction": "a", "outputs": "b"}, "outputs", "is not known"),
        ({"conversations": []}, "conversations", "an empty list"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "conversations", "no assistant message"),
        ({"conversations": [{"from": "cat", "value": "a"}]}, "conversations[0].from", '"cat"'),
        ({"conversations": [{"from": "human", "valeu": "a"}]}, "conversations[0].valeu", "is not known"),
        ({"conversations": [{"from": "gpt", "value": 5}]}, "conversations[0].value", "must be a string"),
        ({"conversations": [{"from": "function_call", "value": "x"}]}, "conversations[0].value", "is not JSON"),
        ({"conversations": [{"from": "function_call", "value": "[]"}]}, "conversations[0].value", "JSON of a call"),
        ({"conversations": [{"from": "function_call", "value": json.dumps(CALL)}]},
         "conversations[0].tool_calls[0].function.name", "none of the line's tools"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "{"}, "tools",
         "is not JSON"),
        ({"chosen": "a", "rejected": "b"}, "prompt", "is missing"),
        ({"prompt": "a", "chosen": "b"}, "rejected", "is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "rejected", "the same answer"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "chosen", "one assistant message"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected", "not null"),
        ({"prompt": 1, "chosen": "b", "rejected": "c"}, "prompt", "not a number"),
        ({"prompt": "a", "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]}, "prompt", "is not among"),
        ({"chosen": [USER, ASSISTANT, USER, ASSISTANT], "rejected": [USER, OTHER]}, "chosen", "goes on for 3"),
        ({"text": ""}, "text", "is empty"),
        ({"text": 7}, "text", "must be a string"),
    ],
)  # fmt: skip
def test_refuses(row: dict[str, Any], field: str, words: str) -> None:
    checked, rows = read_all(json.dumps(row).encode())
    assert (rows, checked.problem_count) == ([], 1)
    (problem,) = checked.problems
    assert (problem.line, problem.field) == (1, field)
    assert words in problem.problem
    assert problem.next_action


def test_plain_text_is_read() -> None:
    checked, rows = read_all(b'{"text": "Once upon a time.", "meta": {"source": "x"}}')
    assert (checked.format, [row.value for row in rows]) == ("text", [{"text": "Once upon a time."}])
    assert [note["message"] for note in checked.notes] == ["`meta` is ignored"]


def test_most_rows_decide_which_format_a_file_is_in() -> None:
    rows = [{"text": "a"}, *[{"prompt": "a", "completion": "b"}] * 3, {"instruction": "a", "output": "b"}]
    checked, good = read_all("\n".join(map(json.dumps, rows)).encode())
    assert (checked.format, len(good)) == ("completion", 3)
    assert [problem.line for problem in checked.problems] == [1, 5]
    assert "in the format text" in checked.problems[0].problem
    assert "other rows of the file in the format completion" in checked.problems[1].problem


def test_one_shape_of_two_formats_is_one_format() -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": [USER], "completion": [ASSISTANT]}]
    checked, _ = read_all("\n".join(map(json.dumps, rows)).encode())
    (problem,) = checked.problems
    assert (problem.line, "chat format" in problem.problem) == (2, True)
