import pytest

from osora.migrate.estimate import UNKNOWN_ANSWER_TOKENS, Estimate, Prices
from osora.migrate.prompts import Prompt


def prompt(text: str, answer: str | None = None) -> Prompt:
    said = None if answer is None else {"role": "assistant", "content": answer}
    return Prompt(1, [{"role": "user", "content": text}], None, said, {})


def test_tokens_are_counted_by_bytes() -> None:
    estimate = Estimate()
    estimate.add(prompt("x" * 400, "y" * 40))
    estimate.add(prompt("é" * 200, "y" * 80))
    assert (estimate.requests, estimate.prompt_tokens, estimate.answer_tokens(None)) == (2, 208, 30)
    assert estimate.unknown == 0


@pytest.mark.parametrize(
    ("known", "max_tokens", "each"), [([40, 80], 7, 15), ([], 7, 7), ([], None, UNKNOWN_ANSWER_TOKENS)]
)
def test_answers_that_the_file_lacks_are_guessed(known: list[int], max_tokens: int | None, each: int) -> None:
    estimate = Estimate()
    for length in known:
        estimate.add(prompt("x", "y" * length))
    estimate.add(prompt("x"))
    assert estimate.unknown == 1
    assert estimate.tokens_of_unknown(max_tokens) == each
    assert estimate.answer_tokens(max_tokens) == sum(known) // 4 + each


def test_a_cost_is_in_dollars() -> None:
    assert Prices(3, 12).cost(1_000_000, 500_000) == pytest.approx(9)
