"""Rows that are held out to validate on: about as many as wanted, and no prompt on both sides."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osora_core.data import Example
from osora_core.data.holding_out import hold_out
from osora_core.errors import UserError

PROMPTS = st.lists(st.integers(1, 12), min_size=1, max_size=120)


def row(line: int, prompt: int, answer: int = 0) -> Example:
    return Example((7, prompt, answer, 3), (False, False, True, True), line)


def rows_of(prompts: list[int]) -> list[Example]:
    return [row(line, prompt, line % 5) for line, prompt in enumerate(prompts, start=1)]


@settings(max_examples=200, deadline=None)
@given(PROMPTS, st.floats(0.001, 0.499), st.integers(0, 2**31 - 1))
def test_no_prompt_is_on_both_sides_and_no_row_is_lost(prompts: list[int], share: float, seed: int) -> None:
    rows = rows_of(prompts)
    if len(set(prompts)) == 1:
        with pytest.raises(UserError) as refused:
            hold_out(rows, share, seed)
        assert refused.value.param == "osora.validation_share"
        return
    train, held = hold_out(rows, share, seed)
    assert train
    assert held
    assert not {example.prompt for example in train} & {example.prompt for example in held}
    assert sorted([*train, *held], key=lambda example: example.line) == rows
    assert train == sorted(train, key=lambda example: example.line)
    assert (train, held) == hold_out(rows, share, seed)
    smallest = min(prompts.count(prompt) for prompt in prompts)
    assert len(held) <= max(smallest, round(share * len(rows) + 0.5))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 400), st.floats(0.01, 0.49), st.integers(0, 1000))
def test_rows_of_their_own_prompts_are_held_out_to_the_row(count: int, share: float, seed: int) -> None:
    _, held = hold_out([row(line, line) for line in range(count)], share, seed)
    assert abs(len(held) - max(1, share * count)) <= 0.5 + 1e-9


def test_another_seed_holds_out_other_rows() -> None:
    rows = [row(line, line) for line in range(100)]
    assert hold_out(rows, 0.2, 1) != hold_out(rows, 0.2, 2)


def test_which_rows_they_are_does_not_depend_on_the_machine_or_version() -> None:
    rows = [row(line, line) for line in range(1, 21)]
    assert [example.line for example in hold_out(rows, 0.2, 1)[1]] == [2, 3, 16, 20]


def test_texts_without_prompts_stay_with_the_same_ones() -> None:
    texts = [Example((7, n, n), (False, True, True), line) for line, n in enumerate([1, 2, 1, 3, 1, 4])]
    with pytest.raises(UserError):
        hold_out(texts, 0.3, 1)  # what begins each of them is no prompt, but the same
    train, held = hold_out(texts, 0.3, 1, have_prompts=False)
    assert not {text.tokens for text in train} & {text.tokens for text in held}
    assert held
