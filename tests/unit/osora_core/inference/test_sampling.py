"""Choosing tokens: Hugging Face's logits processors are the oracle for what remains and how likely it is."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from osora_core.errors import CorruptArtifact, UserError
from osora_core.inference import Request, SamplingParams
from osora_core.inference.sampling import Sampler, distribution, sample, score

VOCABULARY = 50
CPU = torch.device("cpu")

options = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 0.7, 1.0, 1.5]),
        "top_k": st.sampled_from([0, 1, 5, 49, 50, 500]),
        "top_p": st.sampled_from([0.05, 0.5, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.02, 0.3, 1.0]),
        "repetition_penalty": st.sampled_from([0.8, 1.0, 1.3]),
        "logit_bias": st.dictionaries(st.integers(0, 49), st.sampled_from([-100.0, -1.5, 2.0]), max_size=4),
    }
)


def logits_of(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def sampler(prompt: tuple[int, ...] = (1, 2, 3), answer: tuple[int, ...] = (), **params: Any) -> Sampler:
    made = Sampler(Request("r", prompt, SamplingParams(**params)), VOCABULARY, CPU)
    for token in answer:
        made.accept(token)
    return made


@pytest.mark.parametrize("temperature", [1e-46, 1e-40, 1e-38, 1e-30, 9e-6])
def test_a_temperature_of_next_to_nothing_is_greedy(temperature: float) -> None:
    logits = logits_of(seed=7, rows=8) * 30
    chosen = sample(logits, [sampler(temperature=temperature, seed=seed, top_k=seed % 3) for seed in range(8)])
    assert chosen == logits.argmax(dim=-1).tolist()


@pytest.mark.parametrize("temperature", [1e-5, 1e38, 1e300])
def test_an_extreme_temperature_still_draws_from_what_is_there(temperature: float) -> None:
    logits = logits_of(seed=7) * 300
    drawn = {sample(logits.clone(), [sampler(temperature=temperature, seed=seed, top_k=2)])[0] for seed in range(40)}
    assert drawn <= set(logits[0].topk(2).indices.tolist())
    assert len(drawn) == (1 if temperature < 1 else 2)


def test_too_many_stop_strings_are_refused_in_a_short_sentence() -> None:
    with pytest.raises(UserError, match="stop has 300000 strings; at most") as refused:
        SamplingParams(stop=("a",) * 300_000)
    assert refused.value.param == "stop"
    with pytest.raises(UserError) as refused:
        SamplingParams(stop=("a" * 1000, "") * 1000)
    assert len(refused.value.message) < 300


def by_hugging_face(logits: torch.Tensor, tokens: tuple[int, ...], params: dict[str, Any]) -> torch.Tensor:
    steps: list[Any] = []
    if params["repetition_penalty"] != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(params["repetition_penalty"]))
    if params["logit_bias"]:
        steps.append(SequenceBiasLogitsProcessor({(t,): bias for t, bias in params["logit_bias"].items()}))
    steps.append(TemperatureLogitsWarper(params["temperature"]))
    if params["top_k"]:
        steps.append(TopKLogitsWarper(params["top_k"]))
    if params["top_p"] < 1:
        steps.append(TopPLogitsWarper(params["top_p"]))
    if params["min_p"]:
        steps.append(MinPLogitsWarper(params["min_p"]))
    return LogitsProcessorList(steps)(torch.tensor([tokens]), logits.clone()).softmax(dim=-1)


@settings(max_examples=150, deadline=None)
@given(params=options, seed=st.integers(0, 10**6))
def test_what_remains_and_how_likely_is_what_hugging_face_says(params: dict[str, Any], seed: int) -> None:
    logits = logits_of(seed)
    row, made = logits[0].clone(), sampler((4, 9, 9), (7, 4), **params)
    made.adjust(row)
    actual = distribution(row.unsqueeze(0), [made.params])
    expected = by_hugging_face(logits, (4, 9, 9, 7, 4), params)
    assert torch.equal(actual > 0, expected > 0)
    torch.testing.assert_close(actual / actual.sum(), expected)


def test_presence_and_frequency_penalties_count_the_answer_alone() -> None:
    """OpenAI's formula: logit - count * frequency - (count > 0) * presence."""
    logits = logits_of(1)[0]
    row = logits.clone()
    sampler((1, 2, 3), (5, 5, 8), presence_penalty=0.5, frequency_penalty=0.25).adjust(row)
    expected = logits.double()
    expected[5] -= 0.5 + 2 * 0.25
    expected[8] -= 0.5 + 0.25
    torch.testing.assert_close(row.double(), expected)


def test_penalties_and_bias_hold_for_greedy_choices_too() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, [5, 6, 7]] = torch.tensor([3.0, 2.0, 1.0])
    assert sample(logits, [sampler()]) == [5]
    assert sample(logits, [sampler(logit_bias={5: -100})]) == [6]
    assert sample(logits, [sampler(logit_bias={7: 5})]) == [7]
    assert sample(logits, [sampler(answer=(5,), presence_penalty=2)]) == [6]
    assert sample(logits, [sampler(prompt=(5, 6), repetition_penalty=4)]) == [7]
    assert logits[0, 5] == 3, "the logits themselves stay as they are: log-probabilities are read from them"


def test_draws_follow_the_distribution() -> None:
    logits = logits_of(3)
    params = SamplingParams(temperature=1.2, top_k=6, seed=0)
    expected = distribution(logits, [params])[0]
    one = sampler(temperature=1.2, top_k=6, seed=0)
    drawn = Counter(sample(logits, [one])[0] for _ in range(4000))
    assert set(drawn) == set(expected.nonzero().squeeze(1).tolist())
    for token, count in drawn.items():
        assert isinstance(token, int)
        deviation = (expected[token] * (1 - expected[token]) / 4000).sqrt()
        assert abs(count / 4000 - expected[token]) < 5 * deviation


@settings(max_examples=60, deadline=None)
@given(others=st.lists(options, max_size=4), mine=options, seed=st.integers(0, 1000))
def test_a_choice_depends_on_nothing_but_the_row(others: list[dict[str, Any]], mine: dict[str, Any], seed: int) -> None:
    rows = logits_of(seed, 1 + len(others))
    alone, together = (sampler(**mine, seed=seed) for _ in range(2))
    company = [sampler(**other, seed=9) for other in others]
    for _ in range(3):
        (expected,) = sample(rows[:1], [alone])
        assert sample(rows, [together, *company])[0] == expected


def test_a_broken_row_fails_alone() -> None:
    logits = logits_of(5, 3)
    logits[1, 7] = torch.nan
    chosen = sample(logits, [sampler(), sampler(), sampler(temperature=1.0, seed=1)])
    assert isinstance(chosen[1], CorruptArtifact)
    assert chosen[0] == logits[0].argmax()
    assert isinstance(chosen[2], int)


def test_log_probabilities_are_the_models_own() -> None:
    logits = logits_of(6, 2)
    expected = logits.double().log_softmax(dim=-1)
    first, second = score(logits, [4, 9], [0, 3])
    assert (first.token, first.top) == (4, ())
    assert first.logprob == pytest.approx(expected[0, 4].item())
    best = expected[1].topk(3)
    assert [token for token, _ in second.top] == best.indices.tolist()
    assert [logprob for _, logprob in second.top] == pytest.approx(best.values.tolist())


@pytest.mark.parametrize(
    "params",
    [
        {"repetition_penalty": 0.0},
        {"presence_penalty": float("nan")},
        {"logit_bias": {3: float("inf")}},
        {"top_logprobs": 2},
        {"prompt_logprobs": True},
        {"temperature": float("inf")},
        {"stop": ("",)},
    ],
)
def test_what_is_no_way_to_sample(params: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        SamplingParams(**params)
    assert refused.value.param == next(iter(params))
