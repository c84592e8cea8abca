"""A worker of two devices: two processes that train, and evaluate, what one would."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from osora_core import canary
from osora_core.basis import BasisCache
from osora_core.data import Example
from osora_core.errors import UserError
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from osora_core.training.distributed import SharedPasses
from registry.settings import Settings
from tests.unit.osora_core.conftest import Recorder
from worker.followers import FollowerProcesses, spread

SPECS = [
    JobSpec(seed=1, epochs=2, batch_size=4, rank=8),
    JobSpec(seed=2, epochs=2, batch_size=8, rank=4, mix=3, learning_rate=0.05, target_modules=("q_proj", "up_proj")),
    JobSpec(seed=3, epochs=1, batch_size=1, rank=8, train="o"),  # one row a step: nothing is left for the follower
]


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "sharded"])
def pair(
    request: pytest.FixtureRequest,
    base_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    own_variables: pytest.MonkeyPatch,
) -> Iterator[tuple[Runtime, FollowerProcesses]]:
    folder = tmp_path_factory.mktemp("pair")
    settings = Settings(
        data_dir=folder, bases=f"small={base_path}", basis_rank=8, worker_devices=2, worker_shard_base=request.param
    )
    runtime, processes = spread(settings, BasisCache(folder / "cache"))
    yield runtime, processes
    processes.stop()


def train(engine: TrainingEngine, examples: list[Example]) -> list[Any]:
    recorders = [Recorder() for _ in SPECS]
    for number, (spec, recorder) in enumerate(zip(SPECS, recorders, strict=True)):
        engine.add(TrainingJob(str(number), spec, examples, recorder, examples[:3]))
    while engine.step():
        pass
    return recorders


def test_two_processes_train_what_one_does(
    pair: tuple[Runtime, FollowerProcesses], runtime: Runtime, examples: list[Example]
) -> None:
    """Sums are taken in another order, and that is all: losses agree to 1e-5, vectors to 1e-4."""
    shared, processes = pair
    alone = train(TrainingEngine(runtime, max_jobs=3), examples)
    passes = partial(SharedPasses, followers=processes.followers)
    together = train(TrainingEngine(shared, max_jobs=3, passes=passes), examples)
    for one, two in zip(alone, together, strict=True):
        assert two.losses == pytest.approx(one.losses, rel=1e-5)
        rows = [recorder.adapter.to_row(runtime.basis) for recorder in (one, two)]
        torch.testing.assert_close(rows[1], rows[0], rtol=1e-4, atol=1e-4)
        assert [e.loss for e in two.evaluations] == pytest.approx([e.loss for e in one.evaluations], rel=1e-5)
        # What the pair publishes, a whole base answers alike.
        published = canary.compute(shared, two.adapter)
        assert published["tokens"] == canary.compute(runtime, two.adapter)["tokens"]
        torch.testing.assert_close(
            torch.tensor(published["log_probs"]),
            torch.tensor(canary.compute(runtime, two.adapter)["log_probs"]),
            rtol=1e-4,
            atol=1e-4,
        )


def test_only_a_whole_base_answers_samples(pair: tuple[Runtime, FollowerProcesses], examples: list[Example]) -> None:
    runtime, processes = pair
    engine = TrainingEngine(runtime, max_jobs=1, passes=partial(SharedPasses, followers=processes.followers))
    job = TrainingJob("asking", JobSpec(rank=8), examples, Recorder(), prompts=((5, 6, 7),))
    if runtime.is_whole:
        engine.add(job)
    else:
        with pytest.raises(UserError, match="sharded") as refused:
            engine.add(job)
        assert refused.value.param == "osora.sample_prompts"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"worker_devices": 2, "bases": "one,two"},
            "OSORA_BASES names 2 bases, and with OSORA_WORKER_DEVICES=2 a worker serves one",
        ),
        ({"worker_shard_base": True}, "needs OSORA_WORKER_DEVICES of at least 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**settings)
