"""A small random base, loaded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from osora_core.adapter import Adapter
from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, Curve, JobSpec, TrainingEngine, TrainingJob
from tests.support.tiny_base import make_base


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "small")


@pytest.fixture(scope="session")
def runtime(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    cache = BasisCache(tmp_path_factory.mktemp("cache"))
    return Runtime.load("small", cache, path=str(base_path), device="cpu", rank=16)


@pytest.fixture(scope="session")
def examples(runtime: Runtime) -> list[Example]:
    """Rows of different lengths with a simple rule in them."""
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    rows = [
        [
            {"role": "user", "content": f"help {i} " + "please " * (i % 5)},
            {"role": "assistant", "content": f"order {i % 3}"},
        ]
        for i in range(22)
    ]
    return [renderer.render({"messages": row}, line) for line, row in enumerate(rows, start=1)]


class Recorder:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.stepped: list[int] = []
        self.evaluations: list[Any] = []
        self.samples: list[Any] = []
        self.checkpoints: list[Checkpoint] = []
        self.adapter: Adapter | None = None
        self.curve: Curve | None = None
        self.outcome: Any = None
        self.error: Exception | None = None

    def progress(self, progress: Any) -> None:
        self.losses.append(progress.loss)

    def evaluated(self, evaluation: Any) -> None:
        self.evaluations.append(evaluation)

    def sampled(self, samples: Any) -> None:
        self.samples.append(samples)

    def stepped_down(self, pass_tokens: int) -> None:
        self.stepped.append(pass_tokens)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint)

    def finished(self, outcome: Any) -> None:
        self.adapter, self.curve, self.outcome = outcome.adapter, outcome.curve, outcome

    def failed(self, error: Exception) -> None:
        self.error = error


def train(
    runtime: Runtime,
    examples: Sequence[Example],
    *specs: JobSpec,
    resume: Checkpoint | None = None,
    valid: Sequence[Example] = (),
) -> list[Recorder]:
    """Train jobs together to their ends."""
    engine = TrainingEngine(runtime, max_jobs=len(specs))
    recorders = [Recorder() for _ in specs]
    for index, (spec, recorder) in enumerate(zip(specs, recorders, strict=True)):
        engine.add(TrainingJob(str(index), spec, examples, recorder, valid, resume))
    while engine.step():
        pass
    return recorders
