"""Memory is estimated before a job joins: it joins, waits for others to end, or is refused."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from osora_core.data import Example
from osora_core.errors import MemoryTooSmall
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, Sweep, TrainingEngine, TrainingJob
from osora_core.training.errors import JobTooLarge, NotEnoughMemory
from osora_core.training.memory import Memory
from osora_core.training.passes import Passes
from tests.unit.osora_core.conftest import Recorder
from tests.unit.osora_core.training.test_sweep import SweepRecorder

SPEC = JobSpec(epochs=1, batch_size=4, rank=16)


def rows(length: int, count: int = 8) -> list[Example]:
    return [Example((1,) * length, (True,) * length, line) for line in range(count)]


def job(name: str, length: int, spec: JobSpec = SPEC) -> TrainingJob:
    return TrainingJob(name, spec, rows(length), Recorder())


@pytest.mark.parametrize(("jobs", "batch", "length"), [(1, 4, 100), (3, 4, 60), (3, 8, 100)])
def test_the_estimate_covers_what_a_pass_keeps_and_is_not_far_above(
    runtime: Runtime, jobs: int, batch: int, length: int
) -> None:
    """Kept for the backward pass, losses included. Besides this the estimate has what the backward pass works on, which
    is about as much in a base this small."""
    engine = TrainingEngine(runtime, max_jobs=jobs, token_budget=8192)
    members = [job(str(i), length, replace(SPEC, batch_size=batch)) for i in range(jobs)]
    for member in members:
        engine.add(member)
    own = {t.untyped_storage().data_ptr() for t in (*runtime.model.parameters(), *runtime.model.buffers())}
    own.add(engine.bank.values.untyped_storage().data_ptr())
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    items = [(row, index) for index, member in enumerate(members) for row in member.next_batch()]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = engine.passes.forward(items, [member.slot for member in members])
    measured = sum(size for pointer, size in kept.items() if pointer not in own)
    del found
    assert measured <= engine.memory.needed(members) <= 3 * measured


def test_a_job_that_does_not_fit_beside_the_others_joins_when_they_have_ended(runtime: Runtime) -> None:
    memory = TrainingEngine(runtime).memory
    one = memory.needed([job("probe", 60)])
    engine = TrainingEngine(runtime, memory_limit=int(1.5 * one))
    engine.add(job("first", 60))
    second = job("second", 60)
    with pytest.raises(NotEnoughMemory, match="GiB"):
        engine.add(second)
    assert list(engine.jobs) == ["first"]
    while engine.step():
        pass
    engine.add(second)
    assert list(engine.jobs) == ["second"]


def test_a_job_that_would_fit_nowhere_is_its_users_to_mend(runtime: Runtime) -> None:
    engine = TrainingEngine(runtime, memory_limit=1000)
    with pytest.raises(JobTooLarge, match="longest row has 60 tokens"):
        engine.add(job("a", 60))
    assert engine.bank.free == engine.bank.capacity


def test_what_is_advised_can_be_done(runtime: Runtime) -> None:
    """There is no option that shortens rows."""
    with pytest.raises(JobTooLarge) as refused:
        TrainingEngine(runtime, memory_limit=1000).add(job("a", 60))
    assert refused.value.next_action == "shorten, split or remove the longest rows"


class Watched(list[Example]):
    """Rows that count how often all of them are read."""

    reads = 0

    def __iter__(self) -> Iterator[Example]:
        self.reads += 1
        return super().__iter__()


def test_on_the_engines_thread_nobody_reads_all_rows(runtime: Runtime) -> None:
    """Not to join, not for a try that has to wait, nor for a checkpoint, nor by the members of a sweep: where others
    train, every one of them would stand meanwhile. A list's iterator is what a reading of all rows asks for."""
    rows_of = {name: Watched(rows(60)) for name in ("neighbour", "job", "sweep")}
    jobs = {name: TrainingJob(name, SPEC, data, Recorder()) for name, data in rows_of.items()}
    recorder = SweepRecorder()
    members = [replace(SPEC, learning_rate=rate) for rate in (0.01, 0.03)]
    sweep = Sweep(jobs["sweep"], members, rows(60, 2), recorder)
    before = {name: data.reads for name, data in rows_of.items()}
    assert all(before.values())
    engine = TrainingEngine(runtime, memory_limit=int(1.5 * TrainingEngine(runtime).memory.needed([jobs["job"]])))
    engine.add(jobs["neighbour"])
    for _ in range(3):
        with pytest.raises(NotEnoughMemory):
            engine.add(jobs["job"])
    engine.step()
    engine.checkpoint(jobs["neighbour"])
    engine.discard(jobs["neighbour"])
    engine.memory.limit *= 4
    sweep.join(engine)
    while engine.step():
        pass
    assert recorder.outcome is not None
    assert {name: data.reads for name, data in rows_of.items()} == before


def test_what_goes_through_the_model_at_once_is_bounded(runtime: Runtime) -> None:
    """A hundred jobs share passes of the same size: only what the optimizer works on grows with each."""
    engine = TrainingEngine(runtime, token_budget=512)
    many = [job(str(i), 60) for i in range(100)]
    few, more, most = (engine.memory.needed(many[:count]) for count in (10, 20, 100))
    assert (most - more) == pytest.approx(8 * (more - few), rel=1e-6)


def test_a_worker_takes_as_many_typical_jobs_as_fit_beside_the_bank(runtime: Runtime) -> None:
    """Held against the estimate of real jobs and the tensors of a real engine, to the byte."""
    probe = TrainingEngine(runtime).bank

    def needed(count: int) -> int:
        engine = TrainingEngine(runtime, max_jobs=2 * count, token_budget=512)
        optimizer = engine.optimizer
        lasting = (engine.bank.values, optimizer.first, optimizer.second, optimizer.scale)
        gradients = 2 * engine.bank.take_grads().nbytes  # in the layers' views, and gathered
        jobs = [job(str(number), runtime.max_length) for number in range(count)]
        return engine.memory.needed(jobs) + sum(tensor.nbytes for tensor in lasting) + gradients

    for count in (2, 5):
        enough = needed(count)
        memories = [Memory(Passes(runtime, probe, 512), limit) for limit in (enough, enough - 1)]
        assert [memory.jobs_at_once(lambda jobs: 2 * jobs) for memory in memories] == [count, count - 1]


@pytest.mark.parametrize(("cores", "limit", "jobs"), [(2, None, 1), (2, 1e12, 8), (12, 1e12, 12), (200, 1e12, 64)])
def test_a_worker_takes_one_job_at_least_and_no_more_than_its_cores_are_good_for(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, cores: int, limit: float | None, jobs: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    passes = TrainingEngine(runtime).passes
    memory = Memory(passes, _least(passes) if limit is None else limit)
    assert memory.jobs_at_once(lambda jobs: 2 * jobs) == jobs


def test_a_worker_that_has_no_room_for_a_job_of_one_short_row_says_so(runtime: Runtime) -> None:
    passes = TrainingEngine(runtime).passes
    with pytest.raises(
        MemoryTooSmall, match=r"takes at least 0\.0\d GiB of memory, and beside the base 0\.0\d GiB are"
    ):
        Memory(passes, _least(passes) - 1).jobs_at_once(lambda jobs: 2 * jobs)
    with pytest.raises(MemoryTooSmall, match=r"beside the base 0\.00 GiB are there"):
        Memory(passes, -1e9).jobs_at_once(lambda jobs: 2 * jobs)


def _least(passes: Passes) -> int:
    """Bytes with which a worker begins."""

    def begins(limit: int) -> bool:
        try:
            Memory(passes, limit).jobs_at_once(lambda jobs: 2 * jobs)
        except MemoryTooSmall:
            return False
        return True

    return bisect_left(range(10**9), True, key=begins)
