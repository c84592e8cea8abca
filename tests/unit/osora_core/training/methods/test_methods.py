"""A training method is one class: what the engine, evaluations, sweeps and memory do, they do with whatever it says."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import osora_data
from osora_core.data import Example, Renderer, Row, sequences
from osora_core.errors import UserError
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, Sweep, TrainingEngine, TrainingJob, methods
from osora_core.training.methods import Contribution, Figures, Learner
from osora_core.training.passes import Passes
from tests.unit.osora_core.conftest import Recorder, train
from tests.unit.osora_core.training.test_sweep import SweepRecorder

pytestmark = pytest.mark.usefixtures("one_thread")


class RowMeans:
    """A third method: every row counts the same, however long its answer is."""

    row_type = Example
    needs_reference = False

    def render(self, row: osora_data.Row, renderer: Renderer) -> Example:
        return renderer.render(row.value, row.line)

    def contributions(self, stepping: Sequence[tuple[Learner, Sequence[Row]]], passes: Passes) -> list[Contribution]:
        return [self._of(job, batch, passes) for job, batch in stepping]

    def _of(self, job: Learner, batch: Sequence[Row], passes: Passes) -> Contribution:
        rows = [(row, index) for index, row in enumerate(sequences(batch))]
        scores = passes.scores(rows, [job.slot] * len(rows))
        shares = [1 / (row.loss_tokens * len(batch)) for row in batch]
        return Contribution(rows, shares, self.figures(job, batch, scores.losses, scores.hits, passes))

    def figures(self, job: Learner, rows: Sequence[Row], losses: Tensor, hits: Tensor, passes: Passes) -> Figures:
        counted = torch.tensor([row.loss_tokens for row in rows])
        return Figures((losses / counted).mean().item(), (hits / counted).mean().item())


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.setitem(methods.METHODS, "row_means", RowMeans())
    return JobSpec(seed=1, epochs=3, batch_size=4, rank=16, method="row_means")


def test_a_third_method_trains_beside_the_others(runtime: Runtime, examples: list[Example], third: JobSpec) -> None:
    supervised = JobSpec(seed=2, epochs=3, batch_size=4, rank=16)
    mine, other = train(runtime, examples, third, supervised, valid=examples[:3])
    (alone,) = train(runtime, examples, third, valid=examples[:3])
    assert (mine.error, other.error) == (None, None)
    assert mine.evaluations[-1].loss < mine.evaluations[0].loss
    assert mine.losses == pytest.approx(alone.losses, rel=1e-4)


@pytest.mark.usefixtures("a_second_each")
def test_a_third_method_can_be_swept_and_timed(runtime: Runtime, examples: list[Example], third: JobSpec) -> None:
    engine, recorder = TrainingEngine(runtime, max_jobs=2), SweepRecorder()
    engine.throughput._full = 10**6
    specs = [JobSpec.from_dict({**third.to_dict(), "learning_rate": rate}) for rate in (1e-6, 0.03)]
    job = TrainingJob("sweep", specs[0], examples[:18], recorder)
    longer = TrainingJob("longer", replace(third, epochs=100), examples[:18], recorder)
    *timed, cost = engine.throughput.cost_of_sweep(longer, 2, examples[18:])
    assert timed == [None] * 6
    assert cost == pytest.approx(1, abs=0.01)
    Sweep(job, specs, examples[18:], recorder).join(engine)
    while engine.step():
        pass
    assert recorder.outcome.spec.learning_rate == 0.03


def test_a_method_that_there_is_not_is_named_with_those_that_there_are(examples: list[Example]) -> None:
    with pytest.raises(UserError, match="'ppo'") as refused:
        TrainingJob("a", JobSpec(method="ppo"), examples, Recorder())
    assert refused.value.param == "method"
    assert refused.value.next_action == "choose from supervised, dpo"
