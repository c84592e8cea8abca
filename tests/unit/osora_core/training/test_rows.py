"""What is known of a job's rows: sizes for memory, and a digest that no other rows have."""

from osora_core.data import Example, Preference, Row
from osora_core.training.rows import RowFacts


def example(tokens: int, counted: int, line: int = 1, first: int = 0) -> Example:
    mask = (False,) * (tokens - counted) + (True,) * counted
    return Example(tuple(range(first, first + tokens)), mask, line)


def test_sizes_are_those_of_the_largest_rows() -> None:
    facts = RowFacts.of([example(5, 3, 1), example(9, 2, 2)], [example(20, 1, 7)])
    assert (facts.sequence_tokens, facts.row_tokens, facts.counted_tokens) == (9, 9, 3)
    assert facts.longest == (7, 20)
    assert RowFacts.of([example(9, 2, 4)], []).longest == (4, 9)


def test_a_pair_is_as_long_as_both_answers_and_goes_through_the_model_one_by_one() -> None:
    facts = RowFacts.of([Preference(example(6, 2), example(8, 3), 5)], [])
    assert (facts.sequence_tokens, facts.row_tokens, facts.counted_tokens) == (8, 14, 5)
    assert facts.longest == (5, 8)


def test_other_rows_have_another_digest() -> None:
    a, b = example(4, 2), example(4, 2, first=9)
    files: list[tuple[list[Row], list[Row]]] = [
        ([a, b], []),
        ([b, a], []),  # in another order
        ([a], [b]),  # one of them only measured
        ([a, example(4, 1, first=9)], []),  # another mask
        ([a, example(4, 2, first=8)], []),  # other tokens
        ([Example(a.tokens + b.tokens, a.mask + b.mask, 1)], []),  # one row of both
    ]
    assert len({RowFacts.of(train, valid).digest for train, valid in files}) == len(files)
    assert RowFacts.of([a, b], []).digest == RowFacts.of([example(4, 2, line=8), b], []).digest  # wherever it stands
