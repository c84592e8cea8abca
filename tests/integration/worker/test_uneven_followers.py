"""A worker of two devices of which one has less memory: both do what that one can."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from osora_core.bank import Bank
from osora_core.basis import BasisCache
from osora_core.data import Example
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from osora_core.training.distributed import SharedPasses
from osora_core.training.memory import SHARE, Memory
from osora_core.training.passes import Passes
from registry.settings import Settings
from tests.unit.osora_core.conftest import Recorder
from worker import followers
from worker.followers import FollowerProcesses, spread

SPECS = [
    JobSpec(seed=1, epochs=1, batch_size=4, rank=8),
    JobSpec(seed=2, epochs=1, batch_size=4, rank=4, mix=2, learning_rate=0.05, target_modules=("q_proj", "up_proj")),
]
AVAILABLE = 10**8
POISON = 0  # padding, which no row has


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "sharded"])
def pair(
    request: pytest.FixtureRequest,
    runtime: Runtime,
    base_path: Path,
    examples: list[Example],
    tmp_path_factory: pytest.TempPathFactory,
    own_variables: pytest.MonkeyPatch,
) -> Iterator[tuple[Runtime, FollowerProcesses]]:
    """The follower has memory for two rows at once, the leader has it in plenty."""
    folder = tmp_path_factory.mktemp("uneven")
    two_rows = [(max(examples, key=len), 0)] * 2
    whole = Passes(runtime, Bank(runtime.basis, 0, device=runtime.device, trainable=True))
    limits = {
        "AVAILABLE": AVAILABLE,
        "TOKENS": 2 * len(two_rows[0][0]),
        "LEFT": Memory(whole).of_pass(two_rows),
        "POISON": POISON,
    }
    settings = Settings(
        data_dir=folder, bases=f"small={base_path}", basis_rank=8, worker_devices=2, worker_shard_base=request.param
    )
    with own_variables.context() as patch:
        for name, value in limits.items():
            patch.setenv(f"WEAK_{name}", str(value))
        patch.setattr(followers, "_COMMAND", (sys.executable, "-m", "tests.support.weak_follower"))
        shared, processes = spread(settings, BasisCache(folder / "cache"))
    yield shared, processes
    processes.stop()


def jobs(examples: Sequence[Example], recorders: Sequence[Recorder]) -> list[TrainingJob]:
    return [
        TrainingJob(str(number), spec, examples, recorder, examples[:3])
        for number, (spec, recorder) in enumerate(zip(SPECS, recorders, strict=True))
    ]


def train(engine: TrainingEngine, examples: list[Example], *others: TrainingJob) -> list[Any]:
    recorders = [Recorder() for _ in SPECS]
    for job in (*jobs(examples, recorders), *others):
        engine.add(job)
    while engine.step():
        pass
    return recorders


def test_who_has_the_least_memory_decides_for_all(
    pair: tuple[Runtime, FollowerProcesses], runtime: Runtime, examples: list[Example]
) -> None:
    shared, processes = pair
    passes = partial(SharedPasses, followers=processes.followers)
    alone, together = TrainingEngine(runtime, max_jobs=2), TrainingEngine(shared, max_jobs=2, passes=passes)
    gathered = 0
    if not shared.is_whole:
        layer: Any = runtime.model.base_model.layers[0]  # type: ignore[index]
        gathered = 4 * sum(parameter.nbytes for parameter in layer.parameters())
    # The two share a machine's memory, and what gradients take of it is not a job's.
    assert together.memory.limit == AVAILABLE / 2 * SHARE - gathered - 2 * together.bank.values.nbytes
    # What a pass keeps is the same: layers are not kept that come from elsewhere and go again.
    for count in (1, 2):
        some = jobs(examples, [Recorder()] * 2)[:count]
        assert together.memory.needed(some) == alone.memory.needed(some)


def test_where_memory_runs_out_on_one_all_go_on_in_smaller_passes(
    pair: tuple[Runtime, FollowerProcesses], runtime: Runtime, examples: list[Example]
) -> None:
    shared, processes = pair
    alone = train(TrainingEngine(runtime, max_jobs=2), examples)
    engine = TrainingEngine(shared, max_jobs=2, passes=partial(SharedPasses, followers=processes.followers))
    together = train(engine, examples)
    assert sum(len(recorder.stepped) for recorder in together) >= 1
    for one, two in zip(alone, together, strict=True):
        assert two.error is None
        assert two.losses == pytest.approx(one.losses, rel=1e-5)
        rows = [recorder.adapter.to_row(runtime.basis) for recorder in (one, two)]
        torch.testing.assert_close(rows[1], rows[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pair", [False], indirect=True, ids=["whole"])  # a sharded pass cannot be left halfway
def test_what_fails_on_another_device_ends_the_job_whose_it_is(
    pair: tuple[Runtime, FollowerProcesses], runtime: Runtime, examples: list[Example]
) -> None:
    shared, processes = pair
    bad = [replace(row, tokens=(POISON, *row.tokens[1:])) for row in examples]
    poisoned = TrainingJob("poisoned", SPECS[0], bad, Recorder())
    engine = TrainingEngine(shared, max_jobs=3, passes=partial(SharedPasses, followers=processes.followers))
    together = train(engine, examples, poisoned)
    assert "on another device" in str(poisoned.observer.error)  # type: ignore[attr-defined]
    for one, two in zip(train(TrainingEngine(runtime, max_jobs=2), examples), together, strict=True):
        assert two.losses == pytest.approx(one.losses, rel=1e-5)
