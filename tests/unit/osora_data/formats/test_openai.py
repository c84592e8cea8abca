"""Every malformed line is refused with its number, its field and what to do."""

import json
from typing import Any

import pytest

from osora_data import Problem
from tests.support.training_files import read_all, values

GOOD_CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


def chat(*messages: Any) -> bytes:
    return json.dumps({"messages": messages}).encode()


USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (chat(USER, ASSISTANT), "chat"),
        (chat({"role": "system", "content": ""}, USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT), "chat"),
        (chat({"role": "tool", "content": "4"}, ASSISTANT | {"weight": 1}), "chat"),
        (b'{"prompt": "", "completion": "x"}', "completion"),
        (
            b'{"input": {"messages": [{"role": "user", "content": "a"}]}, '
            b'"preferred_output": [{"role": "assistant", "content": "b"}], '
            b'"non_preferred_output": [{"role": "assistant", "content": "c"}]}',
            "preference",
        ),
        ('{"prompt": "é\U0001f600", "completion": "\\ud83d\\ude00"}'.encode(), "completion"),
    ],
)
def test_accepts(line: bytes, expected: str) -> None:
    checked, rows = read_all(line)
    assert (checked.format, checked.problems, checked.notes) == (expected, [], [])
    assert [row.value for row in rows] == [json.loads(line)]


def refused(line: bytes) -> Problem:
    """The problem of the seventh line, behind six good ones."""
    checked, rows = read_all((LINE + b"\n") * 6 + line)
    assert len(rows) == 6
    assert (checked.problem_count, checked.problems[0].line) == (1, 7)
    return checked.problems[0]


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (b"{", None, "is not JSON"),
        (b'{"prompt": "a"} {"prompt": "b"}', None, "there is more behind the object"),
        (b"[[1]]", None, "must be a JSON object, not a list"),
        (b"[1]", None, "must be a JSON object, not a number"),
        (b"[null]", None, "not null"),
        (b'{"words": "a"}', None, '"words"'),
        (b'{"prompt": NaN, "completion": "a"}', None, "NaN"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", None, "has a number of more than 4300 digits"),
        (b'{"messages": ' + b"[" * 100_000, None, "is nested too deeply"),
        (b'{"prompt": "a', None, "Unterminated string starting at character 12"),
        (b'{"prompt": "a\tb"}', None, "Invalid control character at character 14"),
        (b'{"prompt": "a", "prompt": "b", "completion": "c"}', "prompt", 'key "prompt" comes twice'),
        (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "content", 'key "content" comes twice'),
        (b'{"prompt": "a", "\\ud800": 1, "\\ud800": 2}', "?", "comes twice"),
        (b'{"prompt": "\xff"}', None, "byte 13 is not UTF-8"),
        (b'{"prompt": "\\ud800", "completion": "a"}', "prompt", "surrogate"),
        (b'{"prompt": "a"}', "completion", "is missing"),
        (b'{"completion": "a"}', "prompt", "is missing"),
        (b'{"prompt": 1, "completion": "a"}', "prompt", "must be a string, not a number"),
        (b'{"prompt": "a", "completion": null}', "completion", "must be a string, not null"),
        (b'{"prompt": "a", "completion": ""}', "completion", "is empty"),
        (b'{"messages": {}}', "messages", "must be a list"),
        (b'{"messages": []}', "messages", "an empty list"),
        (chat("hi"), "messages[0]", "not a string"),
        (chat(USER, {"content": "x"}), "messages[1].role", "is missing"),
        (chat(USER, {"role": "robot", "content": "x"}), "messages[1].role", '"robot"'),
        (chat(USER, {"role": ["user"], "content": "x"}), "messages[1].role", '["user"]'),
        (chat(USER, {"role": "assistant"}), "messages[1].content", "is missing"),
        (chat({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text", "is missing"),
        (chat(USER, ASSISTANT | {"weight": 0.5}), "messages[1].weight", "is 0.5"),
        (chat(USER, ASSISTANT | {"weight": True}), "messages[1].weight", "is true"),
        (chat(USER | {"weight": 1}, ASSISTANT), "messages[0].weight", "only for assistant"),
        (chat(USER), "messages", "no assistant message"),
        (chat(USER, ASSISTANT | {"weight": 0}), "messages", "no assistant message"),
        (chat(USER, {"role": "assistant", "content": ""}), "messages", "no assistant message"),
    ],
)
def test_refuses(line: bytes, field: str | None, message: str) -> None:
    # Of another format than the lines before in some cases: so by itself.
    checked, _ = read_all(line)
    (problem,) = checked.problems
    assert (problem.line, problem.field) == (1, field)
    assert message in problem.problem
    assert problem.next_action
    assert "set_int_max" not in problem.message
    problem.message.encode()  # it can be sent


@pytest.mark.parametrize(
    ("row", "message", "next_action"),
    [
        ({"prompt": "a", "completion": "b", "label": True}, "TRL's KTO", "without `label`"),
        ({"text": "a", "label": "b"}, "not known which of the two", '"completion"'),
        ({"question": "a", "answer": "b"}, "`question` and `answer`", "rename them to `prompt` and `completion`"),
        ({"input": "a", "output": "b"}, "no `instruction`", "rename them"),
        ({"role": "user", "content": "b"}, "a message by itself", "`messages`"),
    ],
)
def test_a_row_of_another_format_hears_its_name_and_what_to_write(
    row: dict[str, Any], message: str, next_action: str
) -> None:
    checked, _ = read_all(json.dumps(row).encode())
    (problem,) = checked.problems
    assert message in problem.problem
    assert next_action in problem.next_action


def test_keys_that_are_not_known_are_ignored_and_counted() -> None:
    row = {"messages": [USER | {"name": "Bo"}, ASSISTANT], "id": 1, "source": "x", "split": None}
    data = (LINE + b"\n") * 2 + (json.dumps(row).encode() + b"\n") * 7
    checked, rows = read_all(data)
    assert [one.value for one in rows] == [GOOD_CHAT | {"messages": [USER, ASSISTANT]}] * 9
    assert checked.notes == [
        {"message": message, "count": 7, "lines": [3, 4, 5, 6, 7]}
        for message in ("`name` of messages is ignored", "`id` is ignored", "`source` is ignored")
    ]


@pytest.mark.parametrize(
    ("row", "field", "meant"),
    [
        ({"mesages": [USER, ASSISTANT]}, "mesages", "messages"),
        ({"Messages": [USER, ASSISTANT]}, "Messages", "messages"),
        ({"prompt": "a", "completions": "b"}, "completions", "completion"),
        ({"txt": "a"}, "txt", "text"),
        ({"promt": "a", "completion": "b"}, "promt", "prompt"),
        ({"messages": [USER, ASSISTANT | {"weigth": 0}]}, "messages[1].weigth", "weight"),
        ({"messages": [USER, ASSISTANT], "tool": []}, "tool", "tools"),
        ({"messages": [{"rol": "user", "content": "a"}, ASSISTANT]}, "messages[0].rol", "role"),
        ({"preferred_output": [], "non_prefered_output": []}, "non_prefered_output", "non_preferred_output"),
    ],
)  # fmt: skip
def test_a_key_that_is_nearly_a_known_one_is_refused(row: dict[str, Any], field: str, meant: str) -> None:
    checked, _ = read_all(json.dumps(row).encode())
    (problem,) = checked.problems
    assert problem.field == field
    assert f"did you mean `{meant}`" in problem.next_action


PARTS = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (USER | {"content": PARTS}, USER),
        ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
        (USER | {"name": None, "tool_calls": None, "weight": None}, USER),
        ({"role": "assistant", "content": None, "refusal": "No."}, {"role": "assistant", "content": "No."}),
    ],
)
def test_messages_of_several_years_are_read(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert values(chat(message, ASSISTANT)) == [{"messages": [expected, ASSISTANT]}]


def test_an_image_is_refused_by_its_name() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,xxxx"}}
    problem = refused(chat({"role": "user", "content": [*PARTS, image]}, ASSISTANT))
    assert problem.field == "messages[0].content[2]"
    assert '"image_url", and only text is read' in problem.problem


def test_prompts_and_completions_may_be_messages() -> None:
    row = {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]}
    assert values(json.dumps(row).encode()) == [{"messages": [USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT]}]
    mixed = json.dumps(row | {"completion": "a"}).encode()
    assert refused_by_itself(mixed).field == "completion"


def refused_by_itself(line: bytes) -> Problem:
    checked, _ = read_all(line)
    (problem,) = checked.problems
    return problem


LINE = json.dumps(GOOD_CHAT).encode()


ASKED = {"messages": [{"role": "user", "content": "a"}]}
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("b", "c"))


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"input": None}, "input", "must be an object with `messages`, not null"),
        ({"input": {"messages": [USER], "tools": {}}}, "input.tools", "must be a list of tools"),
        ({"input": {}}, "input.messages", "must be a list with a message in it, not null"),
        ({"input": {"messages": [{"role": "user"}]}}, "input.messages[0].content", "is missing"),
        ({"preferred_output": GOOD * 2}, "preferred_output", "must be one assistant message"),
        ({"preferred_output": ASKED["messages"]}, "preferred_output", "must be one assistant message"),
        ({"non_preferred_output": GOOD}, "non_preferred_output", "is the same answer"),
        ({"preferred": 1, "input": {"messages": [USER], "tool": []}}, "input.tool", "is not known"),
    ],
)
def test_a_bad_preference_is_refused_by_its_field(changes: dict[str, Any], field: str, words: str) -> None:
    row = {"input": ASKED, "preferred_output": GOOD, "non_preferred_output": BAD, **changes}
    problem = refused_by_itself(json.dumps(row).encode())
    assert (problem.line, problem.field) == (1, field)
    assert words in problem.problem


@pytest.mark.parametrize("missing", ["input", "preferred_output", "non_preferred_output"])
def test_a_part_of_a_preference_that_is_missing_is_named(missing: str) -> None:
    row = {"input": ASKED, "preferred_output": GOOD, "non_preferred_output": BAD}
    del row[missing]
    problem = refused_by_itself(json.dumps(row).encode())
    assert (problem.field, problem.problem) == (missing, "is missing")
