"""Which state of a job becomes its adapter, and when a job ends before its last step."""

import hashlib

import pytest
import torch

from osora_core.data import Example, Renderer
from osora_core.errors import UserError
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, Curve, Evaluation, JobSpec, TrainingEngine, TrainingJob
from tests.unit.osora_core.conftest import Recorder, train

# Two steps an epoch on rows of one answer. Validation rows have another: what is learned helps there for two epochs.
SPEC = JobSpec(seed=3, epochs=8, batch_size=4, rank=16, learning_rate=0.02)


@pytest.fixture(scope="module")
def taught(examples: list[Example]) -> list[Example]:
    return [example for index, example in enumerate(examples) if index % 3 == 0]


@pytest.fixture(scope="module")
def held_out(runtime: Runtime) -> list[Example]:
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    said = [[{"role": "user", "content": f"help {i}"}, {"role": "assistant", "content": "1"}] for i in range(5)]
    return [renderer.render({"messages": messages}, line) for line, messages in enumerate(said, start=1)]


def spec(**changes: object) -> JobSpec:
    return JobSpec.from_dict({**SPEC.to_dict(), **changes})


def test_the_state_with_the_lowest_validation_loss_becomes_the_adapter(
    runtime: Runtime, taught: list[Example], held_out: list[Example]
) -> None:
    best, last = train(runtime, taught, spec(), spec(keep="last"), valid=held_out)
    losses = {evaluation.step: evaluation.loss for evaluation in best.evaluations if evaluation.step}
    lowest = min(losses, key=losses.__getitem__)
    assert lowest < max(losses), "nothing was overfitted"
    assert (best.outcome.adapter_step, best.outcome.step) == (lowest, max(losses))
    assert last.outcome.adapter_step == last.outcome.step == max(losses)
    states = {checkpoint.step: checkpoint.values for checkpoint in best.checkpoints}
    assert torch.equal(best.outcome.adapter.to_row(runtime.basis), states[lowest])
    assert torch.equal(last.outcome.adapter.to_row(runtime.basis), last.checkpoints[-1].values)


def test_without_validation_rows_the_last_state_is_kept(runtime: Runtime, taught: list[Example]) -> None:
    (recorder,) = train(runtime, taught, spec(epochs=2))
    assert recorder.outcome.adapter_step == recorder.outcome.step
    assert torch.equal(recorder.outcome.adapter.to_row(runtime.basis), recorder.checkpoints[-1].values)


def test_a_job_stops_when_the_validation_loss_has_not_fallen_for_so_long(
    runtime: Runtime, taught: list[Example], held_out: list[Example]
) -> None:
    whole, stopped = train(runtime, taught, spec(), spec(early_stopping_patience=2), valid=held_out)
    best = whole.outcome.adapter_step
    per_epoch = whole.outcome.step // SPEC.epochs
    assert stopped.outcome.step == best + 2 * per_epoch < whole.outcome.step
    assert stopped.outcome.adapter_step == best
    assert torch.equal(stopped.outcome.adapter.to_row(runtime.basis), whole.outcome.adapter.to_row(runtime.basis))
    assert stopped.checkpoints[-1].step == stopped.outcome.step


@pytest.mark.parametrize("patience", [None, 2])
def test_wherever_it_is_resumed_the_same_state_is_kept(
    runtime: Runtime, taught: list[Example], held_out: list[Example], patience: int | None
) -> None:
    """From every step, the best one and the one that ends the job among them, through the checkpoint's bytes."""
    chosen = spec(early_stopping_patience=patience)
    (undisturbed,) = train(runtime, taught, chosen, valid=held_out)
    engine, recorder = TrainingEngine(runtime, max_jobs=1), Recorder()
    engine.add(TrainingJob("a", chosen, taught, recorder, held_out, checkpoint_steps=1))
    while engine.step():
        pass
    assert len(recorder.checkpoints) == undisturbed.outcome.step
    for checkpoint in recorder.checkpoints:
        data = checkpoint.to_bytes()
        resume = Checkpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
        (resumed,) = train(runtime, taught, JobSpec.from_dict(resume.spec), resume=resume, valid=held_out)
        assert resumed.outcome.adapter.to_zip() == undisturbed.outcome.adapter.to_zip()
        assert resumed.curve == undisturbed.curve
        ends = (resumed.outcome.step, resumed.outcome.adapter_step, resumed.outcome.trained_tokens)
        assert ends == (
            undisturbed.outcome.step,
            undisturbed.outcome.adapter_step,
            undisturbed.outcome.trained_tokens,
        )


WORSENING = {"learning_rate": 3.0, "epochs": 2, "warmup_ratio": 0.0}


@pytest.mark.parametrize("begins_with_an_adapter", [False, True])
def test_where_no_state_is_better_the_start_is_kept(
    runtime: Runtime, taught: list[Example], held_out: list[Example], begins_with_an_adapter: bool
) -> None:
    """Also by a job that is resumed, and that ends early: the start is the best one whenever it is asked for."""
    begun = None
    if begins_with_an_adapter:
        (first,) = train(runtime, held_out, spec(epochs=4))
        begun = first.outcome.adapter
    expected = torch.zeros(runtime.basis.row_length) if begun is None else begun.to_row(runtime.basis)
    for changes in ({}, {"early_stopping_patience": 1}):
        chosen, recorder = spec(**WORSENING, **changes), Recorder()
        engine = TrainingEngine(runtime, max_jobs=1)
        engine.add(TrainingJob("a", chosen, taught, recorder, held_out, start=begun))
        engine.step()
        data = engine.remove(engine.jobs["a"]).to_bytes()
        resume = Checkpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
        engine.add(TrainingJob("a", chosen, taught, recorder, held_out, resume, start=begun))
        while engine.step():
            pass
        start, *trained = recorder.evaluations
        assert min(evaluation.loss for evaluation in trained) > start.loss
        assert len(trained) == (1 if changes else 2)
        assert recorder.outcome.adapter_step == 0
        assert not recorder.outcome.worse_than_start
        assert torch.equal(recorder.outcome.adapter.to_row(runtime.basis), expected)


def test_a_last_state_that_is_worse_than_the_start_says_so(
    runtime: Runtime, taught: list[Example], held_out: list[Example]
) -> None:
    worse, better = train(runtime, taught, spec(keep="last", **WORSENING), spec(keep="last", epochs=2), valid=held_out)
    assert worse.outcome.worse_than_start
    assert worse.outcome.adapter_step == worse.outcome.step > 0
    assert better.evaluations[-1].loss < better.evaluations[0].loss
    assert not better.outcome.worse_than_start


def test_patience_without_validation_is_refused(
    runtime: Runtime, taught: list[Example], held_out: list[Example]
) -> None:
    with pytest.raises(UserError, match="nothing is validated"):
        TrainingJob("a", spec(early_stopping_patience=1), taught, Recorder())
    with pytest.raises(UserError, match="nothing is validated"):
        TrainingJob("a", spec(early_stopping_patience=1, evaluate="never"), taught, Recorder(), held_out)


@pytest.mark.parametrize(
    ("losses", "best", "since"),
    [
        ([], None, 0),
        ([9.0], 0, 0),
        ([0.1, 3.0], 0, 1),
        ([9.0, 2.0, 2.0, 3.0], 1, 2),
        ([9.0, float("nan"), 5.0, float("inf")], 2, 1),
        ([float("nan"), float("nan")], None, 0),
    ],
)
def test_the_best_is_the_first_of_the_lowest_numbers_the_start_among_them(
    losses: list[float], best: int | None, since: int
) -> None:
    curve = Curve(evaluations=[Evaluation(step, 9, loss, 0.0, 0.0) for step, loss in enumerate(losses)])
    assert (curve.best and curve.best.step, curve.since_best) == (best, since)
