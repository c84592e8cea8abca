"""What an evaluation says of a job: the same that asking it would."""

import pytest

from osora_core.adapter import Adapter
from osora_core.data import Example
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams, execution
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


def test_samples_are_what_the_adapter_would_say(runtime: Runtime, examples: list[Example]) -> None:
    """At every evaluation, also where there is nothing to measure on."""
    prompts = [example.tokens[: example.mask.index(True)] for example in examples[:3]]
    recorder, engine = Recorder(), TrainingEngine(runtime, max_jobs=1)
    spec = JobSpec(epochs=2, batch_size=11, rank=16, learning_rate=0.1)
    engine.add(TrainingJob("a", spec, examples, recorder, prompts=prompts, sample_tokens=5))
    while engine.step():
        pass
    assert [samples.step for samples in recorder.samples] == [0, 2, 4]
    assert recorder.adapter is not None
    for samples, row in (
        (recorder.samples[0], None),
        (recorder.samples[-1], AdapterRow("a", recorder.adapter.to_row(runtime.basis), 16)),
    ):
        asked = [Request(str(i), tuple(p), SamplingParams(max_tokens=5), adapter=row) for i, p in enumerate(prompts)]
        found = run(InferenceEngine(runtime, rows=3, adapters=3), asked)
        assert samples.texts == tuple(found[str(index)].text for index in range(3))
        assert all(result.tokens <= 5 for result in found.values())
    assert recorder.samples[0].texts != recorder.samples[-1].texts


def test_sampling_leaves_the_weights_where_training_has_them(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a serving engine would lay them out anew, and capture graphs, at every evaluation."""

    class Refusing:
        def __init__(self, *_: object) -> None:
            raise AssertionError("the weights were laid out for serving")

    monkeypatch.setattr(execution.PackedDecoder, "supports", lambda _: True)
    monkeypatch.setattr(execution, "Packed", Refusing)
    recorder, engine = Recorder(), TrainingEngine(runtime, max_jobs=1)
    prompts = [examples[0].tokens[:5]]
    engine.add(TrainingJob("a", JobSpec(epochs=1, batch_size=22, rank=16), examples, recorder, prompts=prompts))
    while engine.step():
        pass
    assert recorder.error is None
    assert [samples.step for samples in recorder.samples] == [0, 1]


def test_a_resumed_job_does_not_say_it_again(runtime: Runtime, examples: list[Example]) -> None:
    prompts = [examples[0].tokens[:5]]
    spec = JobSpec(epochs=2, batch_size=11, rank=16)
    first, engine = Recorder(), TrainingEngine(runtime, max_jobs=1)
    engine.add(TrainingJob("a", spec, examples, first, prompts=prompts))
    engine.step()
    engine.step()
    state = engine.remove(engine.jobs["a"])
    second = Recorder()
    engine.add(TrainingJob("a", spec, examples, second, resume=state, prompts=prompts))
    while engine.step():
        pass
    assert [samples.step for samples in (*first.samples, *second.samples)] == [0, 2, 4]


def test_without_evaluation_there_are_no_samples(runtime: Runtime, examples: list[Example]) -> None:
    recorder, engine = Recorder(), TrainingEngine(runtime, max_jobs=1)
    spec = JobSpec(epochs=1, batch_size=22, rank=16, evaluate="never")
    engine.add(TrainingJob("a", spec, examples, recorder, examples[:3], prompts=[examples[0].tokens[:5]]))
    while engine.step():
        pass
    assert (recorder.samples, recorder.evaluations) == ([], [])
