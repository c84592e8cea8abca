"""What a sweep would cost: the arithmetic, and that measuring leaves the engine as it was."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from osora_core.data import Example, Preference, Renderer, Row, read_preferences
from osora_core.errors import OutOfSlots
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob, throughput
from osora_core.training.errors import JobTooShort
from osora_core.training.passes import Item
from osora_core.training.throughput import CHEAP, MEASURING, Throughput, relative_cost
from tests.unit.osora_core.conftest import Recorder
from tests.unit.osora_core.training.methods.test_dpo import pairs_of


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
    """One of 400 steps, each of which reads all of the rows."""
    values = {"rank": 16, "epochs": 400, "batch_size": len(rows), **spec}
    return TrainingJob("job", JobSpec(**values), rows, Recorder())


@pytest.fixture(scope="module")
def engine(runtime: Runtime) -> TrainingEngine:
    return TrainingEngine(runtime, max_jobs=6)


class Clock:
    now = 0.0


@pytest.fixture(scope="module")
def pairs(runtime: Runtime) -> list[Preference]:
    return read_preferences(pairs_of(4), Renderer(runtime.tokenizer, runtime.max_length))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The only one there is: steps take as long as a test says."""
    clock = Clock()
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


class Device:
    """An engine that takes no steps, but time for them: a second for a single one, for each further copy `a_copy_more`,
    and `first` more for the very first. `timed` are the copies of these steps. A pass is full with `full` tokens."""

    def __init__(
        self,
        engine: TrainingEngine,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        a_copy_more: float,
        full: int = 10**6,
        first: float = 0.0,
    ) -> None:
        self.engine, self.timed = engine, list[int]()
        monkeypatch.setattr(engine.passes, "pass_tokens", full)
        monkeypatch.setattr(engine, "throughput", Throughput(engine.passes, engine.memory, apart=False))

        def taking(job: TrainingJob, batch: Sequence[Row], slots: Sequence[int]) -> None:
            clock.now += 1.0 + a_copy_more * (len(slots) - 1) + (0 if self.timed else first)
            self.timed.append(len(slots))

        monkeypatch.setattr(self.engine.throughput, "_step", taking)

    def cost(self, job: TrainingJob, members: int = 6, choice: Sequence[Row] = ()) -> float:
        return answer(self.engine, job, members, choice)


def answer(engine: TrainingEngine, job: TrainingJob, members: int, choice: Sequence[Row]) -> float:
    *measured, cost = engine.throughput.cost_of_sweep(job, members, choice)
    assert measured == [None] * len(measured)
    assert cost is not None
    return cost


def test_a_shape_is_measured_once(
    engine: TrainingEngine, examples: list[Example], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(engine, clock, monkeypatch, a_copy_more=0.1)
    assert device.cost(job(examples[:4])) == pytest.approx(1 + (0.5 + 0.2 + 0.1) / 4)
    assert device.timed == [1] * 3 + [2] * 3 + [6] * 3
    device.cost(job(examples[1:4]))  # of about the same shape
    assert len(device.timed) == 9
    device.cost(job(examples[:9]))
    assert device.timed[9:] == device.timed[:9]


def test_what_is_too_dear_already_is_not_measured_further(
    engine: TrainingEngine, examples: list[Example], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(engine, clock, monkeypatch, a_copy_more=1.0)
    assert device.cost(job(examples[:4]), choice=examples) > CHEAP
    assert set(device.timed) == {1, 2}


def test_where_a_single_step_is_a_full_pass_nothing_is_measured(
    engine: TrainingEngine, examples: list[Example], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a CPU, nearly always: each copy takes as long as the first, and so does each row to choose by."""
    one = job(examples[:4])
    tokens = sum(map(len, examples[:4]))
    device = Device(engine, clock, monkeypatch, a_copy_more=0.0, full=tokens)
    assert device.cost(one, choice=examples[:4]) == pytest.approx((6 + 3 + 2 + 1) / 4 + (6 + 3 + 2) / one.total_steps)
    assert (device.timed, clock.now) == ([], 0.0)
    device = Device(engine, clock, monkeypatch, a_copy_more=0.0, full=tokens + 1)
    assert device.cost(one) == 1.0
    assert device.timed


@pytest.mark.parametrize("a_copy_more", [0.0, 0.05, 0.2, 0.4, 1.0])
@pytest.mark.parametrize("first", [0.0, 30.0])
@pytest.mark.parametrize("epochs", [1, 19, 20, 119, 120, 250, 400, 1000])
def test_measuring_takes_at_most_a_twentieth_of_the_jobs_own_time(
    engine: TrainingEngine,
    examples: list[Example],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    a_copy_more: float,
    first: float,
    epochs: int,
) -> None:
    """Whatever copies cost. `first`: what the device takes to get ready, which the job waits for as well."""
    device = Device(engine, clock, monkeypatch, a_copy_more, first=first)
    one = job(examples[:4], epochs=epochs)
    try:
        device.cost(one, choice=examples)
        told = True
    except JobTooShort:
        told = False
    assert clock.now - first * bool(device.timed) <= MEASURING * one.total_steps * 1.0
    if epochs < 120:
        assert device.timed == []  # not begun, as it could not be finished
    if epochs == 1000 or (epochs >= 250 and a_copy_more <= 0.05):
        assert told  # or the test would pass with nothing ever measured
    assert device.engine.bank.free == 6


def test_whoever_asks_may_stop_after_any_step(
    engine: TrainingEngine, examples: list[Example], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(engine, clock, monkeypatch, a_copy_more=0.1)
    asking = device.engine.throughput.cost_of_sweep(job(examples[:4]), 6, examples)
    for steps in range(9):
        assert next(asking) is None
        assert device.timed == ([1] * 3 + [2] * 3 + [6] * 3)[:steps]
        assert device.engine.bank.free == 6
        assert not device.engine.bank.take_grads().any()


def test_a_step_on_pairs_is_timed_with_all_of_its_passes(
    runtime: Runtime, pairs: list[Preference], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that takes as long as there are rows. For each copy a step scores both answers of a pair and trains
    on both; the reference's are scored once for all."""
    engine = TrainingEngine(runtime, max_jobs=6)
    forward = engine.passes.forward

    def slow(group: Sequence[Item], slots: Sequence[int]) -> Any:
        clock.now += len(group)
        return forward(group, slots)

    monkeypatch.setattr(engine.passes, "forward", slow)
    engine.throughput._full = 10**6
    preferences, answers = (
        job(pairs, method="dpo"),
        job([answer for pair in pairs for answer in pair.sequences]),
    )
    copies = {count: engine.throughput._timed(preferences, pairs, count) for count in (1, 2, 6)}
    assert copies == {1: len(pairs) * 6, 2: len(pairs) * 10, 6: len(pairs) * 26}
    assert engine.throughput._timed(answers, answers.next_batch(), 1) == len(pairs) * 2
    preferences = job(pairs, method="dpo", epochs=1000)
    assert answer(engine, preferences, 6, []) == relative_cost(6, 1000, {1: 6, 2: 10})
    assert (engine.bank.free, engine.bank.take_grads().any().item()) == (6, False)


def test_rows_to_choose_by_cost_as_much_as_trained_ones_in_as_many_copies(
    engine: TrainingEngine, examples: list[Example], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is more than they do, and needs no measuring."""
    device = Device(engine, clock, monkeypatch, a_copy_more=0.1)
    one, choice = job(examples[:4]), examples[:12]
    share = sum(map(len, choice)) / sum(map(len, examples[:4]))
    without = device.cost(one)
    timed = list(device.timed)
    # A member's rows, at each halving: six members, then three and two.
    assert device.cost(one, choice=choice) == pytest.approx(without + (6 + 3 + 2) * share * (1.5 / 6) / one.total_steps)
    assert device.timed == timed


@pytest.mark.usefixtures("a_second_each")
def test_measuring_leaves_no_trace(runtime: Runtime, examples: list[Example]) -> None:
    """Whatever trains afterwards, or goes on, ends as if nothing had been measured."""

    def train(measures: bool) -> torch.Tensor:
        engine, recorder = TrainingEngine(runtime, max_jobs=4), Recorder()
        engine.add(TrainingJob("job", JobSpec(rank=16, epochs=1, batch_size=8), examples, recorder))
        engine.step()
        if measures:
            engine.throughput._full = 10**6
            assert answer(engine, job(examples[:4], epochs=1000), 3, examples[:8]) == pytest.approx(1, abs=0.01)
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
        engine.throughput._timed(job(examples), examples[:4], 3)
    assert engine.bank.free == engine.bank.capacity
    assert not engine.bank.take_grads().any()


def test_a_sweep_that_would_not_be_admitted_is_not_measured(runtime: Runtime, examples: list[Example]) -> None:
    one, memory = job(examples), TrainingEngine(runtime).memory
    engine = TrainingEngine(runtime, memory_limit=memory.needed([one] * 2))
    assert answer(engine, one, 2, []) > 0
    with pytest.raises(OutOfSlots, match="a sweep of 3 does not fit"):
        answer(engine, one, 3, [])


def test_without_free_slots_nothing_is_measured(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime, max_jobs=1)
    with pytest.raises(OutOfSlots):
        answer(engine, job(examples), 2, [])
    assert engine.bank.free == 1
