"""What becomes of rows that are longer than the limit: all are named, or their beginnings are kept, or they go."""

from typing import Any

import pytest

import osora_data
from osora_common.hyperparameters import Overlong
from osora_core.data import Renderer
from osora_core.data.overlong import RowsTooLongError, RowTooLongError
from osora_core.data.reading import Rendered, render_rows
from osora_core.errors import DataError
from tests.support.tokenizers import tokenizer_of

LONG = 100_000
COMPLETION = {"prompt": "Sort: where is it?\n", "completion": "shipping and parcels, and many more words"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Sort the ticket."},
        {"role": "user", "content": "Where is my parcel?"},
        {"role": "assistant", "content": "shipping"},
        {"role": "user", "content": "And my money?"},
        {"role": "assistant", "content": "refunds, of which there are many kinds"},
    ]
}
PAIR = {
    "input": {"messages": CHAT["messages"][:2]},
    "preferred_output": [{"role": "assistant", "content": "shipping, as it is late"}],
    "non_preferred_output": [{"role": "assistant", "content": "shipping, or so it seems to all of us"}],
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of("osora-tiny")


def read(tokenizer: Any, rows: list[dict[str, Any]], limit: int, overlong: Overlong) -> Rendered[Any]:
    renderer = Renderer(tokenizer, limit, base_length=LONG, truncates=overlong == "truncate")
    return rendered(rows, renderer, overlong)


def rendered(rows: list[dict[str, Any]], renderer: Renderer, overlong: Overlong = "refuse") -> Rendered[Any]:
    file = (osora_data.Row(number, number, "chat", row) for number, row in enumerate(rows, start=1))
    return render_rows(file, lambda row: renderer.render(row.value, row.line), overlong)


@pytest.mark.parametrize("row", [COMPLETION, CHAT])
def test_a_row_is_cut_at_the_limit_token_for_token_and_what_ended_it_is_not_learned(
    tokenizer: Any, row: dict[str, Any]
) -> None:
    whole = Renderer(tokenizer, LONG).render(row, 1)
    first = whole.mask.index(True)
    for limit in range(2, len(whole) + 1):
        renderer = Renderer(tokenizer, limit, truncates=True)
        if limit <= first:  # all of the answer would be gone
            with pytest.raises(RowTooLongError) as refused:
                renderer.render(row, 4)
            assert (refused.value.line, refused.value.tokens) == (4, len(whole))
            continue
        cut = renderer.render(row, 4)
        assert (cut.tokens, cut.mask) == (whole.tokens[:limit], whole.mask[:limit])
        assert cut.is_cut == (limit < len(whole))
        assert cut.loss_tokens > 0
        if row is COMPLETION:
            assert (cut.tokens[-1] == tokenizer.eos_token_id) == (limit == len(whole))


def test_both_answers_of_a_cut_pair_have_one_prompt(tokenizer: Any) -> None:
    whole = Renderer(tokenizer, LONG).preference(PAIR, 1)
    prompt = len(whole.prompt)
    assert whole.chosen.tokens[:prompt] == whole.rejected.tokens[:prompt]
    kept = 0
    for limit in range(prompt, len(whole.rejected)):
        try:
            pair = Renderer(tokenizer, limit, truncates=True).preference(PAIR, 1)
        except RowTooLongError:
            # Nothing of the answers is left, or nothing by which one could be preferred.
            assert whole.chosen.tokens[:limit] == whole.rejected.tokens[:limit]
            continue
        kept += 1
        for cut, of in ((pair.chosen, whole.chosen), (pair.rejected, whole.rejected)):
            assert (cut.tokens, cut.mask) == (of.tokens[:limit], of.mask[:limit])
        assert pair.prompt == whole.prompt
        assert pair.is_cut
    assert kept > 3


def test_all_rows_that_are_refused_are_named_at_once(tokenizer: Any) -> None:
    rows = [{**COMPLETION, "completion": "no " * (60 if n % 2 else 1)} for n in range(30)]
    with pytest.raises(RowsTooLongError) as refused:
        read(tokenizer, rows, 40, "refuse")
    words = str(refused.value)
    tokens = len(Renderer(tokenizer, LONG).render(rows[1], 1))
    assert words.startswith(f"15 of 30 rows are more than 40 tokens long: line 2 ({tokens}), line 4 ({tokens}),")
    assert words.endswith(f"line 20 ({tokens}) and 5 more")
    assert refused.value.line == 2
    assert 'set osora.overlong to "truncate" or "drop"' in str(refused.value.next_action)
    assert "raise osora.max_length: this base reads up to 100000" in str(refused.value.next_action)


def test_a_limit_that_is_the_bases_is_not_to_be_raised(tokenizer: Any) -> None:
    rows = [{**COMPLETION, "completion": "no " * 60}] * 2
    renderer = Renderer(tokenizer, 40, base_length=40)
    with pytest.raises(RowsTooLongError) as refused:
        rendered(rows, renderer)
    assert "max_length" not in str(refused.value.next_action)


def test_a_single_one_is_named_with_its_length(tokenizer: Any) -> None:
    rows = [COMPLETION, {**COMPLETION, "completion": "no " * 60}]
    with pytest.raises(DataError, match=r"^line 2: the row is \d+ tokens long, the limit is 40\n"):
        read(tokenizer, rows, 40, "refuse")


def test_dropped_rows_are_left_out_and_cut_ones_kept(tokenizer: Any) -> None:
    rows = [COMPLETION, {**COMPLETION, "completion": "no " * 60}, {**COMPLETION, "prompt": "where? " * 60}]
    dropped = read(tokenizer, rows, 40, "drop")
    assert ([row.line for row in dropped.rows], dropped.dropped, dropped.truncated) == ([1], [2, 3], [])
    cut = read(tokenizer, rows, 40, "truncate")
    assert ([row.line for row in cut.rows], cut.dropped, cut.truncated) == ([1, 2], [3], [2])


@pytest.mark.parametrize(
    ("overlong", "words", "action"),
    [
        ("drop", r"^2 of 2 rows are more than 5 tokens long, which leaves none to train on: line 1 \(", "truncate"),
        ("truncate", r"^2 of 2 rows are more than 5 tokens long, and within 5 none has anything to learn", "shorten"),
    ],
)
def test_a_file_of_which_nothing_is_left_is_refused(
    tokenizer: Any, overlong: Overlong, words: str, action: str
) -> None:
    with pytest.raises(DataError, match=words) as refused:
        read(tokenizer, [COMPLETION, CHAT], 5, overlong)
    assert action in str(refused.value.next_action)
    assert "drop" not in str(refused.value.next_action)


def test_what_is_wrong_otherwise_is_said_whatever_becomes_of_long_rows(tokenizer: Any) -> None:
    unlearned = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "weight": 0}]}
    with pytest.raises(DataError, match="line 2: nothing to train on"):
        read(tokenizer, [COMPLETION, unlearned], 60, "truncate")
