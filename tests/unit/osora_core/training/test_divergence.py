"""A job whose loss, gradient or vectors stop being numbers fails, says so, and leaves nothing that cannot answer."""

import hashlib
import math
from typing import Any

import pytest
import torch

from osora_core.data import Example
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, JobSpec, Sweep, TrainingEngine, TrainingJob
from osora_core.training import engine as engine_module
from osora_core.training.curve import Evaluation
from osora_core.training.errors import NonFiniteLoss
from tests.unit.osora_core.conftest import Recorder, train
from tests.unit.osora_core.training.test_sweep import SweepRecorder

pytestmark = pytest.mark.usefixtures("one_thread")

# Its only step: whatever that does to the vectors, no further loss will tell.
ONE_STEP = JobSpec(epochs=1, batch_size=22, rank=16, warmup_ratio=0.0)


def failed(recorder: Recorder, words: str) -> None:
    assert isinstance(recorder.error, NonFiniteLoss)
    assert words in recorder.error.message
    assert recorder.error.fault == "user"
    assert recorder.error.param == "osora.learning_rate"
    assert recorder.error.next_action == "submit the job again with a lower learning rate"
    assert recorder.outcome is None


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_job_that_diverges_in_its_last_step_is_not_published(
    runtime: Runtime, examples: list[Example], keep: Any, validated: bool, rate: float
) -> None:
    """At one rate the vectors are still numbers, and what the model computes with them is not; at the other neither."""
    engine, recorder, neighbour = TrainingEngine(runtime, max_jobs=2), Recorder(), Recorder()
    spec = JobSpec.from_dict({**ONE_STEP.to_dict(), "learning_rate": rate, "keep": keep})
    engine.add(TrainingJob("a", spec, examples, recorder, examples[:5] if validated else ()))
    engine.add(TrainingJob("b", ONE_STEP, examples, neighbour))
    while engine.step():
        pass
    failed(recorder, "became")
    assert all(math.isfinite(evaluation.loss) for evaluation in recorder.evaluations)
    assert all(checkpoint.values.isfinite().all() for checkpoint in recorder.checkpoints)
    (alone,) = train(runtime, examples, ONE_STEP)
    assert neighbour.losses == pytest.approx(alone.losses, rel=1e-4)
    assert neighbour.outcome.adapter.to_row(runtime.basis).isfinite().all()
    assert engine.bank.free == 2


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_no_number_ends_its_own_job(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """The loss is one, the gradient is not: as where a product overflows on the way back."""
    engine, recorder, neighbour = TrainingEngine(runtime, max_jobs=2), Recorder(), Recorder()
    job = TrainingJob("a", ONE_STEP, examples, recorder)
    engine.add(job)
    engine.add(TrainingJob("b", ONE_STEP, examples, neighbour))
    take = engine.bank.take_grads

    def overflowing() -> torch.Tensor:
        grads = take()
        grads[job.slot, 0] = value
        return grads

    monkeypatch.setattr(engine.bank, "take_grads", overflowing)
    while engine.step():
        pass
    failed(recorder, "the gradient or the adapter became infinite or nan at step 1")
    assert recorder.losses == []
    assert recorder.checkpoints == []
    assert neighbour.outcome.adapter.to_row(runtime.basis).isfinite().all()


def test_who_takes_the_slot_of_one_that_diverged_learns_the_same(runtime: Runtime, examples: list[Example]) -> None:
    engine, broken, after = TrainingEngine(runtime, max_jobs=1), Recorder(), Recorder()
    spec = JobSpec.from_dict({**ONE_STEP.to_dict(), "learning_rate": 1e38})
    engine.add(TrainingJob("a", spec, examples, broken))
    while engine.step():
        pass
    failed(broken, "became")
    engine.add(TrainingJob("b", ONE_STEP, examples, after))
    while engine.step():
        pass
    (alone,) = train(runtime, examples, ONE_STEP)
    assert torch.equal(after.outcome.adapter.to_row(runtime.basis), alone.outcome.adapter.to_row(runtime.basis))


@pytest.mark.parametrize("begins_with_an_adapter", [False, True])
def test_a_start_that_cannot_be_measured_is_not_the_learning_rates_fault(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch, begins_with_an_adapter: bool
) -> None:
    start = train(runtime, examples, ONE_STEP)[0].outcome.adapter if begins_with_an_adapter else None
    monkeypatch.setattr(engine_module, "evaluate", lambda *_: Evaluation(0, 1, math.nan, 0.0, 0.0))
    engine, recorder = TrainingEngine(runtime, max_jobs=1), Recorder()
    engine.add(TrainingJob("a", ONE_STEP, examples, recorder, examples[:5], start=start))
    assert not engine.step()
    assert isinstance(recorder.error, NonFiniteLoss)
    assert recorder.error.message == "the validation loss is nan before the first step"
    assert recorder.error.param == ("osora.from_adapter" if start else "model")


def test_a_member_of_a_sweep_that_diverges_in_its_last_step_is_not_chosen(
    runtime: Runtime, examples: list[Example]
) -> None:
    engine, recorder = TrainingEngine(runtime, max_jobs=3), SweepRecorder()
    specs = [JobSpec.from_dict({**ONE_STEP.to_dict(), "learning_rate": rate}) for rate in (1e30, 1e38, 0.03)]
    job = TrainingJob("sweep", specs[0], examples, recorder)
    Sweep(job, specs, examples[:3], recorder).join(engine)
    while engine.step():
        pass
    assert recorder.outcome.spec.learning_rate == 0.03
    assert [row["fate"] for row in recorder.rungs[-1].members[:2]] == ["diverged"] * 2


def test_a_checkpoint_never_holds_what_is_no_number(runtime: Runtime, examples: list[Example]) -> None:
    """Found at the step that makes it, not at the next: a checkpoint is due after every step here."""
    engine, recorder = TrainingEngine(runtime, max_jobs=1), Recorder()
    spec = JobSpec(epochs=2, batch_size=8, rank=16, warmup_ratio=0.0, learning_rate=1e38)
    engine.add(TrainingJob("a", spec, examples, recorder, checkpoint_steps=1))
    while engine.step():
        pass
    failed(recorder, "at step 1")
    for checkpoint in recorder.checkpoints:
        data = checkpoint.to_bytes()
        assert Checkpoint.from_bytes(data, hashlib.sha256(data).hexdigest()).values.isfinite().all()


@pytest.mark.parametrize("rate", [0.03, 1e30])
def test_jobs_that_end_together_are_asked_together(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    """Whether the model still computes numbers with them: one pass for all, and if it does not, another for each."""
    engine = TrainingEngine(runtime, max_jobs=4)
    recorders = [Recorder() for _ in range(4)]
    asked: list[int] = []
    forward = engine.passes.forward

    def counting(group: Any, slots: Any) -> Any:
        if not torch.is_grad_enabled():
            asked.append(len(group))
        return forward(group, slots)

    monkeypatch.setattr(engine.passes, "forward", counting)
    for index, recorder in enumerate(recorders):
        spec = JobSpec.from_dict({**ONE_STEP.to_dict(), "learning_rate": rate if index == 0 else 0.03})
        engine.add(TrainingJob(str(index), spec, examples, recorder))
    while engine.step():
        pass
    diverged = rate > 1
    assert asked == ([4, 1, 1, 1, 1] if diverged else [4])
    assert [recorder.outcome is None for recorder in recorders] == [diverged, False, False, False]
    if diverged:
        failed(recorders[0], "after the last step")
        assert recorders[0].checkpoints == []
