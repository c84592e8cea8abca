"""A job that continues from an adapter."""

import hashlib
from dataclasses import replace

import pytest
import torch

from osora_core.adapter import Adapter
from osora_core.data import Example
from osora_core.errors import IdentityMismatch, UserError
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, JobSpec, TrainingEngine, TrainingJob
from tests.unit.osora_core.conftest import Recorder, train

SPEC = JobSpec(epochs=2, batch_size=11, rank=16)


@pytest.fixture(scope="module")
def source(runtime: Runtime, examples: list[Example]) -> tuple[Adapter, float]:
    """An adapter, and its validation loss on the first rows."""
    (recorder,) = train(runtime, examples, SPEC, valid=examples[:5])
    assert recorder.adapter is not None
    return recorder.adapter, recorder.evaluations[-1].loss


def proceed(runtime: Runtime, job: TrainingJob) -> Recorder:
    engine = TrainingEngine(runtime, max_jobs=1)
    engine.add(job)
    while engine.step():
        pass
    assert isinstance(job.observer, Recorder)
    return job.observer


def test_it_begins_where_the_adapter_is_and_goes_on(
    runtime: Runtime, examples: list[Example], source: tuple[Adapter, float]
) -> None:
    adapter, loss = source
    found = proceed(runtime, TrainingJob("a", SPEC, examples, Recorder(), examples[:5], start=adapter))
    assert found.evaluations[0].loss == pytest.approx(loss, rel=1e-6)
    assert found.evaluations[-1].loss < loss


def test_what_it_does_not_train_stays_as_it_was(
    runtime: Runtime, examples: list[Example], source: tuple[Adapter, float]
) -> None:
    spec = JobSpec(epochs=1, batch_size=11, rank=16, target_modules=("q_proj",), train="s")
    adapter = proceed(runtime, TrainingJob("a", spec, examples, Recorder(), start=source[0])).adapter
    assert adapter is not None
    assert adapter.target_modules == source[0].target_modules
    for name, sigma in source[0].sigma.items():
        assert torch.equal(adapter.sigma[name], sigma) == (not name.endswith("q_proj"))
        assert torch.equal(adapter.delta[name], source[0].delta[name])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_it_resumes_exactly(
    runtime: Runtime, examples: list[Example], source: tuple[Adapter, float], steps: int
) -> None:
    undisturbed = proceed(runtime, TrainingJob("a", SPEC, examples, Recorder(), start=source[0]))
    engine = TrainingEngine(runtime, max_jobs=1)
    engine.add(TrainingJob("a", SPEC, examples, Recorder(), start=source[0]))
    for _ in range(steps):
        engine.step()
    data = engine.remove(engine.jobs["a"]).to_bytes()
    state = Checkpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
    resumed = proceed(runtime, TrainingJob("a", SPEC, examples, Recorder(), resume=state, start=source[0]))
    assert resumed.adapter is not None
    assert undisturbed.adapter is not None
    assert resumed.adapter.to_zip() == undisturbed.adapter.to_zip()
    with pytest.raises(UserError, match="another spec"):
        engine.add(TrainingJob("b", SPEC, examples, Recorder(), resume=state))


def test_another_rank_is_refused(runtime: Runtime, examples: list[Example], source: tuple[Adapter, float]) -> None:
    with pytest.raises(UserError, match="has rank 16, the job 8"):
        TrainingJob("a", JobSpec(rank=8), examples, Recorder(), start=source[0])


def test_another_base_is_refused_and_takes_no_slot(
    runtime: Runtime, examples: list[Example], source: tuple[Adapter, float]
) -> None:
    engine = TrainingEngine(runtime, max_jobs=1)
    other = replace(source[0], base_fingerprint="f" * 64)
    with pytest.raises(IdentityMismatch, match="ffff"):
        engine.add(TrainingJob("a", SPEC, examples, Recorder(), start=other))
    assert engine.bank.free == 1
