"""Files that people have reported as refused, or as read wrongly, by one service or another: small ones of the kind."""

import json
from typing import Any

import pytest

from tests.support.training_files import read_all

USER = {"role": "user", "content": "Weather in Oslo?"}
ANSWER = {"role": "assistant", "content": "It rains."}
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = {"name": "weather", "arguments": '{"city": "Oslo"}'}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": CALL}]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "rain"}


@pytest.mark.parametrize(
    ("row", "format_"),
    [
        # What is between a prompt and its answer is their own: spaces and special tokens stay where they are.
        ({"prompt": "The cow says: ", "completion": "moo"}, "completion"),
        ({"prompt": "11 plus 12 = ", "completion": "23"}, "completion"),
        ({"prompt": "", "completion": "Once upon a time"}, "completion"),
        ({"messages": [USER, {"role": "assistant", "content": "    indented"}]}, "chat"),
        ({"messages": [{"role": "assistant", "content": "Hello."}, USER, ANSWER]}, "chat"),
        ({"messages": [USER, {"role": "assistant", "content": "It is <|im_end|> here."}]}, "chat"),
        ({"messages": [USER, {"role": "assistant", "content": "word " * 3000}]}, "chat"),
        ({"messages": [USER, ANSWER], "tools": []}, "chat"),
        ({"messages": [USER, ANSWER | {"tool_calls": None, "function_call": None, "refusal": None}]}, "chat"),
        ({"messages": [USER | {"name": "Ada"}, ANSWER]}, "chat"),
        ({"messages": [USER | {"content": [{"type": "text", "text": "Weather?"}]}, ANSWER]}, "chat"),
        ({"messages": [{"role": "developer", "content": "Be brief."}, USER, ANSWER]}, "chat"),
        ({"messages": [USER, CALLED, RESULT, ANSWER], "tools": [{"type": "function", "function": FUNCTION}],
          "parallel_tool_calls": False}, "chat"),
        ({"messages": [USER, {"role": "assistant", "content": None, "function_call": CALL},
                       {"role": "function", "name": "weather", "content": "rain"}, ANSWER],
          "functions": [FUNCTION]}, "chat"),
        ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, "chat"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "id": "x_0"}, "chat"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"messages": [USER, ANSWER], "id": "7", "source": "x", "metadata": {"split": "train"}}, "chat"),
        ({"text": "Plain."}, "text"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_is_read(row: dict[str, Any], format_: str, mark: str) -> None:
    checked, rows = read_all(json.dumps(row, ensure_ascii=False).encode(mark))
    assert checked.problems == []
    assert (checked.format, len(rows)) == (format_, 1)
    (value,) = [row.value for row in rows]
    if row.keys() == {"messages"} and all(message.keys() == {"role", "content"} for message in row["messages"]):
        content = [message["content"] for message in row["messages"] if isinstance(message["content"], str)]
        assert [message["content"] for message in value["messages"]][-len(content) :] == content
    if format_ == "completion":
        assert value == row


def test_a_file_of_calls_of_a_tool_that_the_row_does_not_have_is_refused() -> None:
    checked, _ = read_all(json.dumps({"messages": [USER, CALLED, RESULT, ANSWER]}).encode())
    assert checked.problems[0].field == "messages[1].tool_calls[0].function.name"
