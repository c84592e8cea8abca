import json
from pathlib import Path
from typing import Any

import pytest

from osora.errors import OsoraUsageError
from osora.migrate.prompts import Prompt, answer_text, read_prompts

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Ho"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}


def read(path: Path, *rows: Any) -> list[Prompt]:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return list(read_prompts(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompts.jsonl"


def test_the_last_answer_is_left_out_and_replaced(path: Path) -> None:
    first = {"role": "assistant", "content": "Ha", "weight": 0}
    (prompt,) = read(path, {"messages": [USER, first, USER, ANSWER]})
    assert prompt.answer == ANSWER
    assert prompt.asked == [USER, {"role": "assistant", "content": "Ha"}, USER], "weights are for training"
    new = {"role": "assistant", "content": "Hu"}
    assert prompt.row(new) == {"messages": [USER, first, USER, new]}


def test_all_kinds_of_rows(path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    rows = [
        {"messages": [USER]},
        {"prompt": "Say: "},
        {"prompt": "Say: ", "completion": "Ho"},
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [USER]},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}], "tools": tools},
    ]
    chat, bare, completion, preference, calling = read(path, rows[0], "", *rows[1:])
    assert (chat.line, bare.line, chat.answer, bare.answer) == (1, 3, None, None)
    assert completion.row({"role": "assistant", "content": "Hu"}) == {"prompt": "Say: ", "completion": "Hu"}
    assert (preference.messages, preference.answer) == ([USER], ANSWER)
    assert calling.rest == {"tools": tools}
    assert calling.answer is not None
    assert answer_text(calling.answer) == '[{"arguments": {"a": 2, "b": 1}, "name": "f"}]'
    assert calling.row(ANSWER)["tools"] == tools


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Hi", "input": "", "output": "Ho", "id": 7},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"prompt": "Hi", "chosen": "Ho", "rejected": "Hu"},
        {"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "Hu"}]},
    ],
)
def test_rows_of_other_tools_are_read_as_in_training_files(path: Path, row: dict[str, Any]) -> None:
    (prompt,) = read(path, row)
    assert (prompt.asked, prompt.answer) == ([USER], ANSWER)


def test_a_message_is_as_training_files_have_it(path: Path) -> None:
    developer = {"role": "developer", "content": "Be kind", "name": None}
    answer = {"role": "assistant", "content": "Ho", "refusal": None, "annotations": []}
    (prompt,) = read(path, {"messages": [developer, answer]})
    assert prompt.messages == [{"role": "system", "content": "Be kind"}]
    assert prompt.answer == ANSWER


def test_the_same_prompt_has_the_same_key_and_a_like_one_the_same_group(path: Path) -> None:
    texts = ["Hi", "Hi", " hi ", "Ho"]
    rows = [
        {"messages": [{"role": "user", "content": text}, {**ANSWER, "content": str(n)}]} for n, text in enumerate(texts)
    ]
    same, again, like, other = read(path, *rows)
    assert same.key == again.key != like.key
    assert same.group == again.group == like.group != other.group
    (parts,) = read(path, {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"text": "i"}]}]})
    assert parts.key == same.key


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "is not JSON"),
        ('{"prompt": "\\ud800"}', "half of a surrogate pair"),
        ('{"prompt": NaN}', "is not usable JSON"),
        ("[]", "is not a JSON object"),
        ({"text": "Hi"}, "neither `messages` nor `prompt`"),
        ({"messages": [USER], "functions": []}, "`functions` is not known"),
        ({"messages": []}, "`messages` is not a list of messages"),
        ({"messages": [ANSWER]}, "an answer without a question"),
        ({"messages": [{"content": "Hi"}]}, "`messages[0]` is not an object with"),
        ({"messages": [{"role": "user", "content": None}]}, "`messages[0].content` is not a text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "`messages[0].content[0]` is not a text",
        ),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{"id": "1"}]}]},
            "`messages[1].tool_calls` is not a list of calls",
        ),
        ({"messages": [USER, {**ANSWER, "tool_calls": "none"}]}, "`messages[1].tool_calls` is not a list of calls"),
        (
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": []}]},
            "`messages[1].content` is not a text",
        ),
        ({"messages": [{**USER, "name": "Ann"}]}, "`messages[0].name` is not known"),
        ({"prompt": 1}, "`prompt` is not a text"),
        ({"input": []}, "`input` is not an object"),
        ({"instruction": "Hi", "output": 1}, "`output` must be a string"),
    ],
)
def test_a_line_that_is_none_is_named(path: Path, row: Any, words: str) -> None:
    with pytest.raises(OsoraUsageError) as refused:
        read(path, {"messages": [USER]}, row)
    assert f"{path} line 2: " in str(refused.value)
    assert words in str(refused.value)
