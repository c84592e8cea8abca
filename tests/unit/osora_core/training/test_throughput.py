"""What a sweep would cost: the arithmetic, and that measuring leaves the engine as it was."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from osora_core.bank import Bank
from osora_core.data import Example, Preference, Renderer, Row, read_preferences
from osora_core.errors import OutOfSlots
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob, throughput
from osora_core.training.passes import Item
from osora_core.training.throughput import CHEAP, Throughput, relative_cost
from tests.unit.osora_core.conftest import Recorder
from tests.unit.osora_core.training.methods.test_dpo import line


def test_on_an_idle_device_a_sweep_costs_nothing_and_on_a_busy_one_its_members() -> None:
    assert relative_cost(6, 100, {1: 0.5, 2: 0.5, 6: 0.5}) == pytest.approx(1.0)
    # Six for a quarter of the steps, then three, two and one.
    assert relative_cost(6, 100, {1: 1.0, 2: 2.0, 6: 6.0}) == pytest.approx((6 + 3 + 2 + 1) / 4)
    assert relative_cost(2, 100, {1: 2.0, 2: 3.0}) == pytest.approx(1.25)


def test_between_the_measured_numbers_steps_grow_evenly_and_beyond_them_as_before() -> None:
    assert relative_cost(6, 100, {1: 1.0, 2: 1.0, 6: 5.0}) == pytest.approx((5 + 2 + 1 + 1) / 4)
    assert relative_cost(6, 100, {1: 1.0, 2: 1.5}) == pytest.approx((3.5 + 2 + 1.5 + 1) / 4)
    assert relative_cost(6, 100, {1: 1.0, 2: 0.9}) == pytest.approx((1 + 1 + 0.9 + 1) / 4)  # noise goes no further


def test_choosing_costs_every_member_at_each_halving() -> None:
    idle = {1: 2.0, 2: 2.0, 6: 2.4}
    without = relative_cost(6, 100, idle)
    # Five seconds for each of six, three and two members; a single job takes 200 seconds.
    assert relative_cost(6, 100, idle, 5.0) == pytest.approx(without + 5 * (6 + 3 + 2) / 200)


def job(rows: Sequence[Row], **spec: Any) -> TrainingJob:
    """One of a hundred steps, each of which reads all of the rows."""
    return TrainingJob("job", JobSpec(rank=16, epochs=100, batch_size=len(rows), **spec), rows, Recorder())


class Clock:
    now = 0.0


@pytest.fixture(scope="module")
def pairs(runtime: Runtime) -> list[Preference]:
    return read_preferences([line(i) for i in range(4)], Renderer(runtime.tokenizer, runtime.max_length))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device on which each further copy takes a tenth of the first; keeps how many copies were timed."""
    seen: list[int] = []

    def seconds(bank: Bank, copies: int, work: Any) -> float:
        seen.append(copies)
        return 1.0 + 0.1 * (copies - 1)

    monkeypatch.setattr(throughput, "_seconds", seconds)
    return seen


def test_a_shape_is_measured_once(runtime: Runtime, examples: list[Example], timed: list[int]) -> None:
    engine = TrainingEngine(runtime)
    cost = engine.throughput.cost_of_sweep(job(examples[:4]), 6, [])
    assert cost == pytest.approx(1 + (0.5 + 0.2 + 0.1) / 4)
    assert timed == [1, 2, 6]
    engine.throughput.cost_of_sweep(job(examples[1:4]), 6, [])  # of about the same shape
    assert timed == [1, 2, 6]
    engine.throughput.cost_of_sweep(job(examples[:9]), 6, [])
    assert timed == [1, 2, 6] * 2


def test_what_is_too_dear_already_is_not_measured_further(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(throughput, "_seconds", lambda _, copies, work: seen.append(copies) or float(copies))
    engine = TrainingEngine(runtime)
    measured = Throughput(engine.passes, engine.memory, apart=False)
    assert measured.cost_of_sweep(job(examples[:4]), 6, examples) > CHEAP
    assert seen == [1, 2]  # and not the rows to choose by, which take longer than a short job does


def test_a_step_on_pairs_is_timed_with_all_of_its_passes(
    runtime: Runtime, pairs: list[Preference], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that takes as long as there are rows. For each copy a step scores both answers of a pair and trains
    on both; the reference's are scored once for all."""
    engine, clock = TrainingEngine(runtime, max_jobs=6), Clock()
    forward = engine.passes.forward

    def slow(group: Sequence[Item], slots: Sequence[int]) -> Any:
        clock.now += len(group)
        return forward(group, slots)

    monkeypatch.setattr(engine.passes, "forward", slow)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock.now)
    preferences, answers = (
        job(pairs, method="dpo"),
        job([answer for pair in pairs for answer in pair.sequences]),
    )
    copies = {count: engine.throughput._measured(preferences, pairs, count) for count in (1, 2, 6)}
    assert copies == {1: len(pairs) * 6, 2: len(pairs) * 10, 6: len(pairs) * 26}
    assert engine.throughput._measured(answers, answers.next_batch(), 1) == len(pairs) * 2
    assert engine.throughput.cost_of_sweep(preferences, 6, []) == relative_cost(6, 100, {1: 6, 2: 10})
    assert (engine.bank.free, engine.bank.take_grads().any().item()) == (6, False)


def test_rows_to_choose_by_are_timed_in_full_passes_and_once(
    runtime: Runtime, examples: list[Example], pairs: list[Preference], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that takes a second a row: each member takes so long for each row, however many there are."""
    engine, clock = TrainingEngine(runtime, max_jobs=6, token_budget=1024), Clock()
    forward, groups = engine.passes.forward, []

    def slow(group: Sequence[Item], slots: Sequence[int]) -> Any:
        groups.append(group)
        clock.now += len(group)
        return forward(group, slots)

    monkeypatch.setattr(engine.passes, "forward", slow)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock.now)
    without = engine.throughput.cost_of_sweep(job(examples[:4]), 2, [])
    cost = engine.throughput.cost_of_sweep(job(examples[:4]), 2, examples[:12])
    # Two members, 12 rows, halved once; a hundred steps of four rows.
    assert cost == pytest.approx(without + 2 * 12 / 400)
    groups.clear()
    cost = engine.throughput.cost_of_sweep(job(examples[:4]), 2, examples[:8])
    assert cost == pytest.approx(without + 2 * 8 / 400)
    assert groups == []
    preferences = job(pairs, method="dpo")
    without = engine.throughput.cost_of_sweep(preferences, 2, [])
    cost = engine.throughput.cost_of_sweep(preferences, 2, pairs)
    assert cost == pytest.approx(without + 2 * 2 * len(pairs) / (100 * 6 * len(pairs)))


def test_measuring_leaves_no_trace(runtime: Runtime, examples: list[Example]) -> None:
    """Whatever trains afterwards, or goes on, ends as if nothing had been measured."""

    def train(measures: bool) -> torch.Tensor:
        engine, recorder = TrainingEngine(runtime, max_jobs=4), Recorder()
        engine.add(TrainingJob("job", JobSpec(rank=16, epochs=1, batch_size=8), examples, recorder))
        engine.step()
        if measures:
            assert engine.throughput.cost_of_sweep(job(examples[:4]), 3, examples[:8]) > 0
            assert engine.bank.free == 3
        while engine.step():
            pass
        return recorder.outcome.adapter.to_row(runtime.basis)

    assert torch.equal(train(measures=True), train(measures=False))


def test_a_sweep_that_does_not_fit_is_refused_and_leaves_no_trace(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TrainingEngine(runtime)
    backward = engine.passes.backward

    def small(items: list[Any], slots: list[int], *more: Any) -> torch.Tensor:
        sums = backward(items, slots, *more)
        if len(slots) > 2:
            raise torch.OutOfMemoryError("too small")
        return sums

    monkeypatch.setattr(engine.passes, "backward", small)
    with pytest.raises(OutOfSlots, match="3 copies of a batch do not fit"):
        engine.throughput._measured(job(examples), examples[:4], 3)
    assert engine.bank.free == engine.bank.capacity
    assert not engine.bank.take_grads().any()


def test_a_sweep_that_would_not_be_admitted_is_not_measured(runtime: Runtime, examples: list[Example]) -> None:
    one, memory = job(examples), TrainingEngine(runtime).memory
    engine = TrainingEngine(runtime, memory_limit=memory.needed([one] * 2))
    assert engine.throughput.cost_of_sweep(one, 2, []) > 0
    with pytest.raises(OutOfSlots, match="a sweep of 3 does not fit"):
        engine.throughput.cost_of_sweep(one, 3, [])


def test_without_free_slots_nothing_is_measured(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime, max_jobs=1)
    with pytest.raises(OutOfSlots):
        engine.throughput.cost_of_sweep(job(examples), 2, [])
    assert engine.bank.free == 1
