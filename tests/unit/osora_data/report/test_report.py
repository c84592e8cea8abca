"""What a valid file is warned of."""

import json
import random
import tracemalloc
from typing import Any

import pytest

from osora_data import Format, Row
from osora_data.report import Observer, Sketch, overlap
from osora_data.report import sketch as sketches
from osora_data.report.table import Table


def chat(*messages: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages], **more}


def pair(prompt: str, completion: str) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion}


def preference(prompt: str, better: str, worse: str) -> dict[str, Any]:
    sides = {"preferred_output": better, "non_preferred_output": worse}
    return {"input": chat(("user", prompt)), **{k: [{"role": "assistant", "content": v}] for k, v in sides.items()}}


def format_of(value: dict[str, Any]) -> Format:
    kinds: dict[str, Format] = {"messages": "chat", "prompt": "completion", "text": "text", "input": "preference"}
    return next(kinds[key] for key in value if key in kinds)


def observed(*values: dict[str, Any]) -> Observer:
    observer = Observer()
    for number, value in enumerate(values, start=1):
        observer(Row(number, number, format_of(value), value))
    return observer


def warned(*values: dict[str, Any], enough: bool = True) -> dict[str, dict[str, Any]]:
    """By code. Rows without a fault come behind, so that there are enough."""
    others = [pair(f"fine {number}", f"yes {number} " + "x" * 90) for number in range(10 * enough)]
    return {warning["code"]: warning for warning in observed(*values, *others).warnings()}


def test_a_good_file_is_warned_of_nothing() -> None:
    assert warned() == {}
    assert warned(chat(("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"))) == {}


@pytest.mark.parametrize("count", [1, 9])
def test_few_rows(count: int) -> None:
    found = warned(*(pair(f"ask {n}", f"answer {n}") for n in range(count)), enough=False)
    assert found.keys() == {"few_rows"}
    assert ("one row" if count == 1 else "only 9 rows") in found["few_rows"]["message"]


@pytest.mark.parametrize(
    "value",
    [
        pair("why", " \n\u00a0"),
        chat(("user", "why"), ("assistant", "\t")),
        chat(("user", "why"), ("assistant", ""), ("user", "why?"), ("assistant", "so")),
        preference("why", "so", "  "),
    ],
)
def test_an_answer_of_white_space(value: dict[str, Any]) -> None:
    found = warned(pair("one", "1"), value)["blank_answer"]
    assert (found["count"], found["lines"]) == (1, [2])


def test_an_answer_that_is_not_learned_may_be_blank() -> None:
    first = {"role": "assistant", "content": " ", "weight": 0}
    rest = chat(("user", "why"), ("assistant", "so"))["messages"]
    assert warned({"messages": [first, *rest]}) == {}


@pytest.mark.parametrize(
    "value",
    [
        pair("why", "so"),
        chat(("user", "why"), ("assistant", "so")),
        chat(("system", "s"), ("user", "why"), ("assistant", "so")),
        {"text": "so it is"},
        preference("why", "so", "no"),
    ],
)
def test_duplicates_are_told_with_where_they_were_first(value: dict[str, Any]) -> None:
    found = warned(value, pair("another", "one"), json.loads(json.dumps(value)), value)
    assert found.keys() == {"duplicate_rows"}
    assert (found["duplicate_rows"]["count"], found["duplicate_rows"]["lines"]) == (2, [3, 4])
    assert "(line 3 after line 1)" in found["duplicate_rows"]["message"]


def test_calls_and_tools_are_a_part_of_a_row() -> None:
    def calling(city: str, tool: str) -> dict[str, Any]:
        call = {"id": "c", "type": "function", "function": {"name": tool, "arguments": json.dumps({"city": city})}}
        asked = {"role": "user", "content": "the weather?"}
        return {"messages": [asked, {"role": "assistant", "content": None, "tool_calls": [call]}], "tools": [tool]}

    assert warned(calling("Rome", "now"), calling("Rome", "later")) == {}, "other tools, so another prompt"
    assert warned(calling("Rome", "now"), calling("Oslo", "now")).keys() == {"contradicting_rows"}
    assert warned(calling("Rome", "now"), calling("Rome", "now")).keys() == {"duplicate_rows"}


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("WHY is it", "So."), ("Why is  it?", "so"), ('"Why" is it', " so "), ("why\nis it!", "(so)")],
)
def test_near_duplicates(prompt: str, completion: str) -> None:
    found = warned(pair("Why is it", "so"), pair(prompt, completion))
    assert found.keys() == {"near_duplicate_rows"}
    assert found["near_duplicate_rows"]["lines"] == [2]


def test_near_duplicates_of_any_script() -> None:
    assert warned(pair("ПОЧЕМУ это?", "так"), pair("почему это", "Так.")).keys() == {"near_duplicate_rows"}
    assert warned(pair("1 + 1", "2"), pair("1 - 1", "0")) == {}


def test_contradictions() -> None:
    found = warned(pair("why", "so"), pair("how", "so"), pair("why", "not so"))
    assert found.keys() == {"contradicting_rows"}
    assert found["contradicting_rows"]["lines"] == [3]
    assert "(line 3 after line 1)" in found["contradicting_rows"]["message"]
    assert warned(pair("why", "so"), pair("why", " so\n")).keys() == {"near_duplicate_rows"}


def test_contradicting_preferences() -> None:
    both = [preference("why", "so", "no"), preference("why", "maybe", "no")]
    assert warned(*both) == {}, "other pairs of answers to one prompt are fine"
    assert warned(*both, preference("why", "no", "so")).keys() == {"contradicting_rows"}


def test_a_conversation_that_ends_without_an_answer() -> None:
    found = warned(chat(("user", "why"), ("assistant", "so"), ("user", "thanks")))
    assert found.keys() == {"no_answer_at_the_end"}


def test_labels() -> None:
    def labelled(**counts: int) -> dict[str, dict[str, Any]]:
        return warned(*(pair(f"{name} {n}", name) for name in counts for n in range(counts[name])), enough=False)

    found = labelled(yes=95, no=5)
    assert found.keys() == {"unbalanced_labels"}
    assert "'yes' has 95 of 100 rows, 'no' has 5" in found["unbalanced_labels"]["message"]
    assert labelled(yes=60, no=40) == {}
    assert labelled(yes=100) == {}, "one label is a contradiction of nothing"
    assert labelled(**{f"label{n}": 1 for n in range(60)}, yes=900) == {}, "too many to be labels"


def test_counts_of_a_large_file_are_estimates() -> None:
    table, hits = Table(most_keys=1000), 0
    rng = random.Random(1)
    for key in [rng.getrandbits(63) for _ in range(20_000)]:
        for line in (1, 2):
            hits += table.weight if table.first(key * 2, line, 0) else 0
    assert table.is_sample
    assert hits == pytest.approx(20_000, rel=0.2)


def test_memory_is_bounded() -> None:
    rng = random.Random(1)
    table = Table()
    tracemalloc.start()
    try:
        for _ in range(600_000):
            table.first(rng.getrandbits(64), 1, 0)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()


def sketch(*texts: str) -> Sketch:
    found = Sketch()
    for line, text in enumerate(texts, start=1):
        found.add(b"", text.encode(), line)
    return Sketch.from_bytes(found.to_bytes())


def test_overlap() -> None:
    training, validation = sketch("a", "b", "c"), sketch("d", "c", "e", "a")
    found = overlap(validation, training)
    assert found is not None
    assert (found["count"], found["lines"]) == (2, [2, 4])
    assert found["message"].startswith("2 of the 4 rows")
    assert overlap(sketch("x"), training) is None


def test_overlap_of_large_files_is_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "MOST_ROWS", 1000)
    training = sketch(*(f"row {n}" for n in range(20_000)))
    validation = sketch(*(f"row {n}" for n in range(18_000, 22_000)))
    assert len(training.to_bytes()) < 20_000
    found = overlap(validation, training)
    assert found is not None
    assert found["count"] == pytest.approx(2000, rel=0.35)
    assert found["message"].startswith("about ")
    # A small file loses none of its own, so what it has in common is known up to the other's share.
    assert overlap(sketch("nothing", "like", "it"), training) is None
