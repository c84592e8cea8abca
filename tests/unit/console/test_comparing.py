"""Two models on a file's rows."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from console.comparing import Comparison, Contender, compare, prompts_of
from osora.errors import OsoraAPIError, OsoraUsageError
from tests.unit.console.answers import client, refused, said

OLD, NEW = Contender("ft:tiny:acme:old:1"), Contender("tiny", is_base=True)


def file_of(*rows: tuple[str, str | None]) -> bytes:
    lines = [[("user", asked), *([("assistant", answer)] if answer else [])] for asked, answer in rows]
    said = [{"messages": [{"role": role, "content": text} for role, text in line]} for line in lines]
    return "".join(json.dumps(line) + "\n" for line in said).encode()


def compared(content: bytes, answers: dict[str, tuple[str, str]]) -> Comparison:
    """The old model and the new one answer each question so."""

    def answer(body: dict[str, Any]) -> httpx.Response:
        assert body["temperature"] == 0
        old, new = answers[body["messages"][-1]["content"]]
        if "refuse" in (old, new):
            return refused(400, "the prompt is too long")
        return said(new if body.get("base") == "tiny" else old)

    async def run() -> Comparison:
        return await compare(client(answer), await prompts_of(content, "rows.jsonl", 100), OLD, NEW)

    return asyncio.run(run())


def test_match_is_counted_for_each_and_rows_that_differ_come_first() -> None:
    found = compared(
        file_of(("a", "billing"), ("b", "shipping"), ("c", "login"), ("d", "billing")),
        {"a": ("billing", "billing"), "b": ("x y z", "shipping"), "c": ("login please", "login"), "d": ("no", "no")},
    )
    old, new = found.scores
    assert (old.exact_match, new.exact_match) == (0.25, 0.75)
    assert found.same == 2
    assert [row.prompt for row in found.in_order()] == ["b", "c", "a", "d"]
    assert [row.right for row in found.in_order()] == [(False, True), (False, True), (True, True), (False, False)]
    assert old.field_match is None


def test_json_is_compared_field_by_field() -> None:
    found = compared(
        file_of(("a", '{"kind": "billing", "urgent": true}')),
        {"a": ('{"urgent": true, "kind": "billing"}', '{"kind": "login", "urgent": true}')},
    )
    old, new = found.scores
    assert (old.exact_match, old.field_match, new.field_match) == (0, 1, 0.5)
    assert found.fields() == [("kind", 1, 1.0, 0.0), ("urgent", 1, 1.0, 1.0)]
    assert found.rows[0].right == (True, False)


def test_a_file_without_answers_compares_the_two_alone() -> None:
    found = compared(file_of(("a", None), ("b", None)), {"a": ("x", "x"), "b": ("x", "y")})
    assert found.same == 1
    assert found.scores[0].exact_match is None
    assert [row.expected for row in found.in_order()] == [None, None]


def test_a_row_that_is_refused_says_why_and_counts_for_nothing() -> None:
    found = compared(file_of(("a", "x"), ("b", "y")), {"a": ("refuse", ""), "b": ("y", "y")})
    assert found.in_order()[0].failed == "the prompt is too long"
    assert (found.scores[0].rows, found.same) == (1, 1)


def test_what_would_be_refused_of_every_row_ends_it() -> None:
    async def run() -> None:
        prompts = await prompts_of(file_of(("a", "x"), ("b", "y")), "rows.jsonl", 100)
        await compare(client(lambda _: refused(404, "no adapter 'old'")), prompts, OLD, NEW)

    with pytest.raises(OsoraAPIError, match="no adapter 'old'"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"messages": [{"role": "user", "content": "a"}]}\n{"messages": 3}\n', r"rows\.jsonl: line 2: .*messages"),
        (b"", r"rows\.jsonl: the file has no examples"),
    ],
)
def test_a_bad_file_is_named_with_its_line_and_not_with_a_path_of_this_machine(content: bytes, problem: str) -> None:
    with pytest.raises(OsoraUsageError, match=problem) as raised:
        asyncio.run(prompts_of(content, "rows.jsonl", 100))
    assert "/" not in str(raised.value)


def test_no_more_rows_are_read_than_are_asked() -> None:
    prompts = asyncio.run(prompts_of(file_of(("a", None), ("b", None)) + b"no JSON\n", "rows.jsonl", 2))
    assert [prompt.line for prompt in prompts] == [1, 2]


def test_an_answer_that_is_no_json_has_none_of_the_fields_and_is_no_field_itself() -> None:
    found = compared(file_of(("a", '{"kind": "billing"}')), {"a": ("no idea", '{"kind": "billing"}')})
    assert (found.scores[0].field_match, found.scores[1].field_match) == (0, 1)
    assert found.fields() == [("kind", 1, 0.0, 1.0)]
