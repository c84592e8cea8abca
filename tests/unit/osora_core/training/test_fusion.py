"""Jobs that share the engine: what each learns is what it learns alone, whoever comes, goes or breaks."""

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from osora_core.data import Example, split_by_tokens
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, JobSpec, TrainingEngine, TrainingJob
from osora_core.training.passes import Item, Passes, pass_tokens
from tests.unit.osora_core.conftest import Recorder, train

pytestmark = pytest.mark.usefixtures("one_thread")

RANK = 16


def row(recorder: Recorder, runtime: Runtime) -> Tensor:
    assert recorder.error is None
    assert recorder.adapter is not None
    return recorder.adapter.to_row(runtime.basis)


specs = st.builds(
    JobSpec,
    seed=st.integers(0, 5),
    epochs=st.just(1),
    batch_size=st.integers(3, 9),
    learning_rate=st.sampled_from([0.01, 0.03]),
    rank=st.sampled_from([2, 8, RANK]),
    mix=st.sampled_from([0, 0, 1, 2]),
    target_modules=st.sampled_from(["all-linear", ("q_proj", "down_proj"), ("up_proj",)]),
    train=st.sampled_from(["both", "s", "o"]),
)


@st.composite
def mixes(draw: st.DrawFn) -> list[tuple[JobSpec, int, int | None, int]]:
    """Jobs: a spec, the round in which it joins, the one in which it is dropped and resumed, and its first row."""
    job = st.tuples(specs, st.integers(0, 2), st.none() | st.integers(1, 3), st.integers(0, 6))
    return draw(st.lists(job, min_size=2, max_size=3))


@pytest.mark.parametrize("apart", [True, False])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mix=mixes())
def test_a_job_learns_what_it_learns_alone(
    runtime: Runtime, examples: list[Example], apart: bool, mix: list[tuple[JobSpec, int, int | None, int]]
) -> None:
    engine = TrainingEngine(runtime, max_jobs=len(mix), apart=apart)
    recorders = [Recorder() for _ in mix]
    for round_ in range(40):
        for index, (spec, joins, resumes, first) in enumerate(mix):
            name, data = str(index), examples[first : first + 10]
            if round_ == joins:
                engine.add(TrainingJob(name, spec, data, recorders[index]))
            elif resumes is not None and round_ == joins + resumes and name in engine.jobs:
                state = engine.remove(engine.jobs[name]).to_bytes()
                resume = Checkpoint.from_bytes(state, hashlib.sha256(state).hexdigest())
                engine.add(TrainingJob(name, spec, data, recorders[index], resume=resume))
        if not engine.step() and round_ > max(joins for _, joins, _, _ in mix):
            break
    for recorder, (spec, _, _, first) in zip(recorders, mix, strict=True):
        (alone,) = train(runtime, examples[first : first + 10], spec)
        mine, theirs = row(recorder, runtime), row(alone, runtime)
        if apart:
            assert recorder.losses == alone.losses
            assert torch.equal(mine, theirs)
        else:
            assert recorder.losses == pytest.approx(alone.losses, rel=1e-3)
            assert (mine - theirs).norm() <= 1e-2 * theirs.norm()


def test_data_that_breaks_the_model_ends_its_own_job(runtime: Runtime, examples: list[Example]) -> None:
    engine, recorders = TrainingEngine(runtime, max_jobs=3), [Recorder() for _ in range(3)]
    spec = JobSpec(epochs=1, batch_size=4, rank=RANK)
    broken = [Example((1, 10**6, 2), (True,) * 3, 1)]
    for index, (recorder, data) in enumerate(zip(recorders, (examples, broken, examples), strict=True)):
        engine.add(TrainingJob(str(index), spec, data, recorder))
    while engine.step():
        pass
    assert isinstance(recorders[1].error, IndexError)
    (alone,) = train(runtime, examples, spec)
    for recorder in (recorders[0], recorders[2]):
        torch.testing.assert_close(row(recorder, runtime), row(alone, runtime), rtol=1e-3, atol=1e-4)


class Small(Passes):
    """A device with room for so many tokens."""

    room = 150

    def forward(self, group: Sequence[Item], slots: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        if len(group) * max(len(example) for example, _ in group) > self.room:
            raise torch.OutOfMemoryError("injected")
        return super().forward(group, slots)


def test_where_memory_runs_out_the_largest_job_takes_smaller_steps_and_all_learn_the_same(
    runtime: Runtime, examples: list[Example]
) -> None:
    engine = TrainingEngine(runtime, max_jobs=2, passes=Small)
    small, large = Recorder(), Recorder()
    wide = JobSpec(epochs=1, batch_size=11, rank=RANK)
    narrow = JobSpec(epochs=1, batch_size=1, rank=RANK)
    engine.add(TrainingJob("large", wide, examples, large))
    engine.add(TrainingJob("small", narrow, examples[:2], small))
    while engine.step():
        pass
    assert large.stepped == sorted(large.stepped, reverse=True)
    assert large.stepped[-1] <= Small.room
    assert small.stepped == []
    for recorder, spec, data in ((large, wide, examples), (small, narrow, examples[:2])):
        (alone,) = train(runtime, data, spec)
        torch.testing.assert_close(row(recorder, runtime), row(alone, runtime), rtol=1e-3, atol=1e-4)


def test_a_row_that_fits_nowhere_ends_its_own_job(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = sorted(map(len, examples))
    monkeypatch.setattr(Small, "room", lengths[0])
    engine, recorders = TrainingEngine(runtime, max_jobs=2, passes=Small), [Recorder(), Recorder()]
    data = sorted(examples, key=len)
    for index, recorder in enumerate(recorders):
        job = data[:1] if index == 0 else data[-1:]
        engine.add(TrainingJob(str(index), JobSpec(epochs=1, batch_size=1, rank=RANK), job, recorder))
    while engine.step():
        pass
    assert recorders[0].adapter is not None
    assert isinstance(recorders[1].error, torch.OutOfMemoryError)


@pytest.mark.parametrize(
    ("device", "parameters", "layers", "expected"),
    [("cpu", 7_000_000, 8, 128), ("cuda", 32 * 218_000_000, 32, 2048), ("cuda", 7_000_000, 8, 32768)],
)
def test_the_smaller_the_layers_the_more_padding_is_cheaper_than_a_pass(
    device: str, parameters: int, layers: int, expected: int
) -> None:
    config = SimpleNamespace(num_hidden_layers=layers)
    runtime: Any = SimpleNamespace(device=torch.device(device), parameters=parameters, config=config)
    assert pass_tokens(runtime) == expected


def test_where_no_job_can_bring_a_batch_the_engine_stands(runtime: Runtime, examples: list[Example]) -> None:
    """Each ends for itself, the engine goes on with whoever comes next."""
    engine, recorders = TrainingEngine(runtime, max_jobs=2), [Recorder() for _ in range(3)]
    for index, recorder in enumerate(recorders[:2]):
        broken = TrainingJob(str(index), JobSpec(epochs=1, rank=RANK), examples, recorder)
        broken.next_batch = lambda: (_ for _ in ()).throw(RuntimeError("no rows"))  # type: ignore[method-assign]
        engine.add(broken)
    assert not engine.step()
    assert [str(recorder.error) for recorder in recorders[:2]] == ["no rows"] * 2
    engine.add(TrainingJob("next", JobSpec(epochs=1, rank=RANK), examples, recorders[2]))
    while engine.step():
        pass
    assert recorders[2].adapter is not None


def test_who_sits_out_a_round_learns_the_same(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime, max_jobs=4, apart=True)
    spec, recorders = JobSpec(epochs=1, batch_size=6, rank=RANK), [Recorder() for _ in range(4)]
    for index, recorder in enumerate(recorders):
        tenant = "one" if index == 3 else "many"
        engine.add(TrainingJob(str(index), spec, examples, recorder, tenant=tenant))
    engine.step()
    assert sorted(len(recorder.losses) for recorder in recorders[:3]) == [0, 0, 1]
    assert len(recorders[3].losses) == 1
    while engine.step():
        pass
    (alone,) = train(runtime, examples, spec)
    for recorder in recorders:
        assert torch.equal(row(recorder, runtime), row(alone, runtime))


def test_a_long_row_does_not_pad_short_ones() -> None:
    rows = [(Example((1,) * length, (True,) * length, 1), length) for length in (100, 10, 12, 9, 11)]
    assert [[length for _, length in group] for group in split_by_tokens(rows, 1000, 64)] == [[100], [12, 11, 10, 9]]
    assert len(split_by_tokens(rows, 1000)) == 1
