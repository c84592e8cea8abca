"""OSoRA's runs share the engine's passes, and learn what each learns alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.quality.data import even_slices
from benchmarks.quality.learned import Diverged, Learned
from benchmarks.quality.ours import EvenPasses, Osora
from osora_core.bank import Bank
from osora_core.basis import BasisCache
from osora_core.data import Example
from osora_core.operator import runs
from osora_core.operator.runs import equal_runs
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine
from osora_core.training.errors import NotEnoughMemory
from tests.support.tiny_base import make_base


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime.load("b", BasisCache(tmp_path), path=str(make_base(tmp_path / "base")), device="cpu", rank=8)


def _specs() -> list[JobSpec]:
    common: Any = {"epochs": 2, "batch_size": 3, "rank": 8, "evaluate": "never"}
    return [
        JobSpec(learning_rate=0.03, seed=0, **common),
        JobSpec(learning_rate=0.1, seed=1, **common),
        JobSpec(learning_rate=0.1, seed=1, train="s", **common),
        JobSpec(learning_rate=0.1, seed=1, mix=4, mix_rate=0.3, **common),
    ]


def test_runs_side_by_side_are_those_alone(runtime: Runtime, examples: list[Example]) -> None:
    measured = {"valid": examples[:2], "test": examples}
    together = Osora(runtime).learn(examples, measured, _specs())
    alone = [Osora(runtime).learn(examples, measured, [spec])[0] for spec in _specs()]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Learned)
        assert isinstance(other, Learned)
        for part in measured:
            assert one.scores[part].loss == pytest.approx(other.scores[part].loss, rel=1e-3)
            assert one.scores[part].accuracy == other.scores[part].accuracy
        assert (one.parameters, one.bytes) == (other.parameters, other.bytes)
    told = [one for one in together if isinstance(one, Learned)]
    assert len({one.scores["test"].loss for one in told}) == len(told)
    assert told[3].parameters - told[1].parameters == 4**2 * len(runtime.basis.spans)


def test_a_run_that_diverges_is_told_as_such(runtime: Runtime, examples: list[Example]) -> None:
    calm, wild = _specs()[0], JobSpec(learning_rate=1e30, epochs=2, batch_size=3, rank=8)
    found = Osora(runtime).learn(examples, {"test": examples}, [wild, calm])
    (alone,) = Osora(runtime).learn(examples, {"test": examples}, [calm])
    assert isinstance(found[0], Diverged)
    assert isinstance(found[1], Learned)
    assert isinstance(alone, Learned)
    assert found[1].scores["test"].loss == pytest.approx(alone.scores["test"].loss, rel=1e-3)


def test_runs_that_do_not_fit_beside_the_others_train_after_them(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    add, sizes = TrainingEngine.add, []

    def narrow(self: TrainingEngine, job: object) -> None:
        if len(self.jobs) == 2:
            raise NotEnoughMemory("full")
        add(self, job)  # type: ignore[arg-type]
        sizes.append(len(self.jobs))

    wanted = Osora(runtime).learn(examples, {"test": examples}, _specs())
    monkeypatch.setattr(TrainingEngine, "add", narrow)
    found = Osora(runtime).learn(examples, {"test": examples}, _specs())
    assert sizes == [1, 2, 1, 2]
    for one, other in zip(found, wanted, strict=True):
        assert isinstance(one, Learned)
        assert isinstance(other, Learned)
        assert one.scores["test"].loss == pytest.approx(other.scores["test"].loss, rel=1e-3)


def test_passes_hold_as_many_rows_of_each_run(runtime: Runtime, examples: list[Example]) -> None:
    passes = EvenPasses(runtime, Bank(runtime.basis, 3, device=torch.device("cpu")), token_budget=60)
    items = [(example, run) for run in range(3) for example in examples]
    groups = passes.groups(items, [1, 2, 3])
    assert len(groups) > 1
    assert sorted((row.line, run) for group in groups for row, run in group) == [
        (row.line, run) for row in examples for run in range(3)
    ]
    for group in groups:
        owners = [run for _, run in group]
        assert len(equal_runs(runs(owners))) == 1  # one batched product
        assert len(group) <= 3 or len(group) * max(len(row) for row, _ in group) <= 60


def test_even_slices_bound_tokens_and_padding() -> None:
    lengths = torch.tensor([[9, 8, 3, 2], [10, 8, 3, 1]])
    assert even_slices(lengths, budget=1000, padding=1000) == [(0, 4)]
    assert even_slices(lengths, budget=40, padding=1000) == [(0, 2), (2, 4)]
    assert even_slices(lengths, budget=1000, padding=6) == [(0, 2), (2, 4)]
    assert even_slices(lengths, budget=1, padding=0) == [(0, 1), (1, 2), (2, 3), (3, 4)]
