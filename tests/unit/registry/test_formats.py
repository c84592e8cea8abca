"""Every malformed line is refused with its number, its field and what to do."""

import json
from typing import Any

import pytest

from registry.dataset import DatasetCheck, split_lines
from registry.errors import InvalidFile
from registry.formats import check_line

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
    assert check_line(line, 1) == expected


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (b"{", None, "is not JSON"),
        (b"not json", None, "is not JSON"),
        (b'{"prompt": "a"} {"prompt": "b"}', None, "Extra data"),
        (b"[1]", None, "must be a JSON object, not a list"),
        (b"null", None, "not null"),
        (b"12", None, "not a number"),
        (b'{"text": "a"}', None, "is in the format of plain text (`text`), which is not read here"),
        (b'{"txt": "a"}', None, '"txt"'),
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
        (b'{"\\ud800": 1, "prompt": "a", "completion": "a"}', "?", "is not known"),
        (b'{"prompt": "a"}', "completion", "is missing"),
        (b'{"completion": "a"}', "prompt", "is missing"),
        (b'{"prompt": 1, "completion": "a"}', "prompt", "must be a string, not a number"),
        (b'{"prompt": "a", "completion": null}', "completion", "must be a string, not null"),
        (b'{"prompt": "a", "completion": ""}', "completion", "is empty"),
        (b'{"prompt": "a", "completion": "b", "weight": 1}', "weight", "is not known"),
        (b'{"messages": {}}', "messages", "must be a list"),
        (b'{"messages": []}', "messages", "an empty list"),
        (chat("hi"), "messages[0]", "not a string"),
        (chat(USER, {"content": "x"}), "messages[1].role", "null"),
        (chat(USER, {"role": "robot", "content": "x"}), "messages[1].role", '"robot"'),
        (chat(USER, {"role": ["user"], "content": "x"}), "messages[1].role", '["user"]'),
        (chat(USER, {"role": "assistant"}), "messages[1].content", "is missing"),
        (chat({"role": "user", "content": [{"type": "text"}]}), "messages[0].content", "OpenAI's content parts"),
        (chat(USER, ASSISTANT | {"weight": 0.5}), "messages[1].weight", "is 0.5"),
        (chat(USER, ASSISTANT | {"weight": True}), "messages[1].weight", "is true"),
        (chat(USER | {"weight": 1}, ASSISTANT), "messages[0].weight", "only for assistant"),
        (chat(USER, ASSISTANT | {"name": "Bo"}), "messages[1].name", "is not known"),
        (chat(USER), "messages", "no assistant message"),
        (chat(USER, ASSISTANT | {"weight": 0}), "messages", "no assistant message"),
        (chat(USER, {"role": "assistant", "content": ""}), "messages", "no assistant message"),
    ],
)
def test_refuses(line: bytes, field: str | None, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        check_line(line, 7)
    error = caught.value
    assert (error.line, error.field) == (7, field)
    assert error.message.startswith("line 7: ")
    assert message in error.message
    assert error.next_action
    assert "set_int_max" not in error.message
    error.message.encode()  # it can be sent


@pytest.mark.parametrize(
    ("row", "field", "message", "next_action"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, None, "Alpaca's format", '"messages"'),
        ({"instruction": "a", "output": "b", "system": "c", "history": []}, None, "Alpaca's format", '"prompt"'),
        ({"conversations": [{"from": "human", "value": "a"}]}, None, "ShareGPT's format", '"messages"'),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, None, "TRL's preference format", "preferred_output"),
        ({"chosen": [], "rejected": []}, None, "TRL's preference format", "for the method dpo"),
        ({"prompt": "a", "completion": "b", "label": True}, None, "TRL's format of rated answers", '"completion"'),
        ({"messages": [USER, ASSISTANT], "functions": [{}]}, "functions",
         "older form of OpenAI's format for tools", "`tools`"),
        ({"messages": [USER, {"role": "assistant", "function_call": {}}]}, "messages[1].function_call",
         "older form of OpenAI's format for tools", "`tool_calls`"),
        ({"messages": [{"role": "function", "name": "w", "content": "a"}]}, "messages[0].role",
         "older form of OpenAI's format for tools", "role `tool`"),
    ],
)  # fmt: skip
def test_a_row_of_another_format_hears_its_name_and_what_to_write(
    row: dict[str, Any], field: str | None, message: str, next_action: str
) -> None:
    with pytest.raises(InvalidFile) as caught:
        check_line(json.dumps(row).encode(), 1)
    assert caught.value.field == field
    assert message in caught.value.message
    assert "which is not read here" in caught.value.message
    assert next_action in str(caught.value.next_action)
    assert "remove" not in str(caught.value.next_action)


def test_all_unknown_keys_are_named_at_once() -> None:
    with pytest.raises(InvalidFile) as caught:
        check_line(json.dumps({"messages": [USER, ASSISTANT], "id": 1, "source": "x", "split": "train"}).encode(), 3)
    assert caught.value.message == "line 3: `id` is not known here (and 2 more: source, split)"
    assert caught.value.next_action == "remove them; known are messages, tools, parallel_tool_calls"
    assert caught.value.field == "id"


def check(data: bytes, *, piece: int = 1 << 20) -> tuple[str, int]:
    dataset = DatasetCheck()
    for start in range(0, len(data), piece):
        dataset.feed(data[start : start + piece])
    summary = dataset.finish()
    return summary.format, summary.rows


LINE = json.dumps(GOOD_CHAT).encode()


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "data", [LINE + b"\n" + LINE, LINE + b"\r\n" + LINE + b"\r\n", LINE * 1 + b"\n" + LINE + b"\n\n \n"]
)
def test_lines_are_found_however_the_file_is_cut(data: bytes, piece: int) -> None:
    assert check(data, piece=piece) == ("chat", 2)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_only_a_line_feed_ends_a_line(piece: int) -> None:
    """What else ends a line for some readers is white space between two keys, or a character of a text."""
    inside = "\u2028 \u2029 \x85".join("ab")
    rows = [f'{{"prompt": "{inside}",{white}"completion": "c"}}'.encode() for white in (" ", "\r", "\r\r ")]
    data = b"\r\n".join(rows) + b"\n\x0b\x0c\n"
    assert check(data, piece=piece) == ("completion", 3)
    assert [line.rstrip(b"\r") for line in split_lines(data) if line.strip()] == rows
    with pytest.raises(InvalidFile, match="line 1: is not JSON"):
        check(b"\r".join(rows), piece=piece)


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"", None, "no examples"),
        (b"\n \n", None, "no examples"),
        (b"\xef\xbb\xbf" + LINE, 1, "byte order mark"),
        (LINE + b"\n\n\n" + LINE, 2, "is empty"),
        (LINE + b'\n{"prompt": "a", "completion": "b"}', 2, "completion format"),
        (LINE + b"\n" + LINE + b"\n{", 3, "is not JSON"),
        (LINE + b"\n" + b"x" * (17 << 20), 2, "is longer than"),
    ],
)
def test_refuses_files(data: bytes, line: int | None, message: str) -> None:
    with pytest.raises(InvalidFile, match=message) as caught:
        check(data)
    assert caught.value.line == line
    assert caught.value.next_action


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
        ({"weight": 1}, "weight", "is not known"),
    ],
)
def test_a_bad_preference_is_refused_by_its_field(changes: dict[str, Any], field: str, words: str) -> None:
    row = {"input": ASKED, "preferred_output": GOOD, "non_preferred_output": BAD, **changes}
    with pytest.raises(InvalidFile, match=words) as refused:
        check_line(json.dumps(row).encode(), 7)
    assert (refused.value.line, refused.value.field) == (7, field)


@pytest.mark.parametrize("missing", ["input", "preferred_output", "non_preferred_output"])
def test_a_part_of_a_preference_that_is_missing_is_named(missing: str) -> None:
    row = {"input": ASKED, "preferred_output": GOOD, "non_preferred_output": BAD}
    del row[missing]
    with pytest.raises(InvalidFile, match=f"`{missing}` is missing"):
        check_line(json.dumps(row).encode(), 1)
