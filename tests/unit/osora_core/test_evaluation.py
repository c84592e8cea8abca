"""What an evaluation says of a job: the same that asking it would."""

import pytest

from osora_core.adapter import Adapter
from osora_core.data import Example
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from tests.support.inference import run
from tests.unit.osora_core.conftest import Recorder, train


def answers(runtime: Runtime, adapter: Adapter, examples: list[Example]) -> list[bool]:
    """Whether greedy decoding gives each example's answer, the end of the turn included."""
    row = AdapterRow("a", adapter.to_row(runtime.basis), adapter.rank)
    expected, requests = [], []
    for index, example in enumerate(examples):
        start = example.mask.index(True)
        counted = [token for token, counts in zip(example.tokens, example.mask, strict=True) if counts]
        expected.append(runtime.tokenizer.decode(counted, skip_special_tokens=True))
        params = SamplingParams(max_tokens=len(example) - start)
        requests.append(Request(str(index), example.tokens[:start], params, adapter=row))
    found = run(InferenceEngine(runtime, rows=8, adapters=1), requests)
    return [
        found[str(index)].reason == "stop" and found[str(index)].text == text for index, text in enumerate(expected)
    ]


def test_exact_match_is_the_share_of_rows_that_greedy_decoding_gets_right(
    runtime: Runtime, examples: list[Example]
) -> None:
    """Trained on rows of one answer only, it gets those right and the others wrong."""
    first = [example for index, example in enumerate(examples) if index % 3 == 0]
    spec = JobSpec(epochs=12, batch_size=4, rank=16, learning_rate=0.1)
    (recorder,) = train(runtime, first, spec, valid=examples)
    assert recorder.adapter is not None
    right = answers(runtime, recorder.adapter, examples)
    assert 0 < sum(right) < len(right)
    assert recorder.evaluations[-1].exact_match == pytest.approx(sum(right) / len(right))
    assert recorder.evaluations[0].exact_match == 0


def test_the_groups_that_rows_are_measured_in_change_nothing(runtime: Runtime, examples: list[Example]) -> None:
    measured = []
    for token_budget in (1, 64, 100_000):
        recorder, engine = Recorder(), TrainingEngine(runtime, max_jobs=1, token_budget=token_budget)
        engine.add(TrainingJob("a", JobSpec(epochs=1, batch_size=22, rank=16), examples, recorder, examples))
        engine.step()
        measured.append(recorder.evaluations[0])
    for other in measured[1:]:
        assert other.loss == pytest.approx(measured[0].loss, rel=1e-5)
        assert (other.accuracy, other.exact_match) == (measured[0].accuracy, measured[0].exact_match)
