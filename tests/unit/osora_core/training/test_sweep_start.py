"""A sweep's best is held against what all members began with."""

from collections.abc import Iterator

import pytest

from osora_core.adapter import Adapter
from osora_core.data import Example
from osora_core.runtime import Runtime
from osora_core.training import TrainingEngine, TrainingJob
from tests.unit.osora_core.conftest import Recorder, train
from tests.unit.osora_core.training.test_sweep import SPEC, SweepRecorder, outcome, run, specs, sweep

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def engine(runtime: Runtime) -> Iterator[TrainingEngine]:
    engine = TrainingEngine(runtime, max_jobs=2)
    yield engine
    assert (engine.bank.free, engine.jobs, engine.after_step) == (2, {}, {})


@pytest.mark.parametrize("rates", [(0.03, 1e-6), (5.0, 20.0)])
@pytest.mark.parametrize("begins_with_an_adapter", [False, True])
def test_the_best_is_held_against_the_start_where_nothing_is_validated(
    engine: TrainingEngine, examples: list[Example], rates: tuple[float, ...], begins_with_an_adapter: bool
) -> None:
    start = train(engine.runtime, examples, SPEC)[0].outcome.adapter if begins_with_an_adapter else None
    recorder = SweepRecorder()
    run(engine, sweep(examples, specs(*rates), recorder, start=start))

    def loss(adapter: Adapter | None) -> float:
        told = Recorder()
        engine.add(TrainingJob("measured", SPEC, examples, told, examples[18:], start=adapter))
        engine.step()
        (job,) = engine.jobs.values()
        engine.discard(job)
        return told.evaluations[0].loss

    before, after = loss(start), loss(outcome(recorder).adapter)
    assert outcome(recorder).choice_losses == pytest.approx((before, after), rel=1e-4)
    if rates[0] > 1 and begins_with_an_adapter:
        assert after > before


def test_where_the_start_is_validated_it_is_not_measured_again(engine: TrainingEngine, examples: list[Example]) -> None:
    recorder = SweepRecorder()
    run(engine, sweep(examples, specs(0.03, 1e-6), recorder, valid=examples[18:]))
    assert outcome(recorder).choice_losses is None
    assert outcome(recorder).curve.start is not None
