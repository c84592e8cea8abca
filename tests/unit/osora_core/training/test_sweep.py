"""A sweep's members learn what they would learn alone, the worse go in order, and no restart changes anything."""

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from osora_common.hyperparameters import MAX_CHOICE_ROWS
from osora_core.data import Example
from osora_core.errors import CorruptArtifact, OutOfSlots, UserError
from osora_core.runtime import Runtime
from osora_core.training import (
    Checkpoint,
    JobSpec,
    Rung,
    Sweep,
    SweepCheckpoint,
    SweepOutcome,
    TrainingEngine,
    TrainingJob,
)
from osora_core.training.errors import JobTooLarge, NonFiniteLoss, NotEnoughMemory
from osora_core.training.sweep import choice_of, hold_back
from osora_core.training.sweep_state import halvings
from tests.unit.osora_core.conftest import Recorder, train

pytestmark = pytest.mark.usefixtures("one_thread")

# 18 rows in batches of 3: six steps an epoch, twelve in all, halvings after 3, 6 and 9 for five members.
SPEC = JobSpec(seed=5, epochs=2, batch_size=3, rank=16)
RATES = (0.03, 0.01, 0.1, 1e-6, 0.2)


class SweepRecorder(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.rungs: list[Rung] = []
        self.progresses: list[Any] = []

    def progress(self, progress: Any) -> None:
        super().progress(progress)
        self.progresses.append(progress)

    def narrowed(self, rung: Rung) -> None:
        self.rungs.append(rung)


def specs(*rates: float, **changes: Any) -> list[JobSpec]:
    return [replace(SPEC, learning_rate=rate, **changes) for rate in rates]


def sweep(
    examples: Sequence[Example],
    specs: Sequence[JobSpec],
    recorder: SweepRecorder,
    resume: SweepCheckpoint | None = None,
    **job: Any,
) -> Sweep:
    choice = examples[18:]
    return Sweep(TrainingJob("sweep", specs[0], examples[:18], recorder, **job), specs, choice, recorder, resume)


@pytest.fixture
def engine(runtime: Runtime) -> Iterator[TrainingEngine]:
    """Whatever a test does with it, nothing may be left in it."""
    engine = TrainingEngine(runtime, max_jobs=5)
    yield engine
    assert not engine.step()
    assert (engine.bank.free, engine.after_step) == (5, {})


def run(engine: TrainingEngine, sweep: Sweep) -> None:
    sweep.join(engine)
    while engine.step():
        pass


def outcome(recorder: SweepRecorder) -> SweepOutcome:
    assert recorder.error is None
    assert isinstance(recorder.outcome, SweepOutcome)
    return recorder.outcome


def family(recorder: SweepRecorder) -> dict[float, list[dict[str, str]]]:
    lines: dict[float, list[dict[str, str]]] = {}
    for line in csv.DictReader(io.StringIO(outcome(recorder).family)):
        lines.setdefault(float(line["learning_rate"]), []).append(line)
    return lines


def test_a_schedule_is_halved_until_one_member_is_left() -> None:
    assert halvings(8, 800) == [200, 400, 600]
    assert halvings(5, 800) == [200, 400, 600]
    assert halvings(3, 99) == [33, 66]
    assert halvings(2, 9) == [4]
    assert halvings(8, 3) == [1, 2]  # the last members are compared at the end
    assert halvings(8, 1) == []


def test_the_worse_half_goes_at_each_halving(engine: TrainingEngine, examples: list[Example]) -> None:
    recorder = SweepRecorder()
    run(engine, sweep(examples, specs(*RATES), recorder))
    assert [rung.step for rung in recorder.rungs] == [3, 6, 9]
    gone: list[int] = []
    for rung, left in zip(recorder.rungs, (3, 2, 1), strict=True):
        staying = [row["loss"] for row in rung.members if row["fate"] is None]
        going = [index for index, row in enumerate(rung.members) if row["fate"] and index not in gone]
        assert len(staying) == left
        assert max(staying) <= min(rung.members[index]["loss"] for index in going)
        gone += going
    curves = family(recorder)
    assert list(curves) == list(RATES)
    assert {rate: len(lines) for rate, lines in curves.items()} == {
        RATES[index]: steps for index, steps in zip(gone, (3, 3, 6, 9), strict=True)
    } | {outcome(recorder).spec.learning_rate: 12}
    assert [lines[-1]["outcome"] for lines in curves.values()].count("chosen") == 1
    assert curves[1e-6][-1]["outcome"] == "discarded"  # it learns nothing


def test_members_learn_what_each_learns_alone(
    runtime: Runtime, engine: TrainingEngine, examples: list[Example]
) -> None:
    recorder = SweepRecorder()
    run(engine, sweep(examples, specs(*RATES), recorder, valid=examples[18:]))
    curves = family(recorder)
    for spec in specs(*RATES):
        (alone,) = train(runtime, examples[:18], spec, valid=examples[18:])
        shared = [float(line["train_loss"]) for line in curves[spec.learning_rate] if line["train_loss"]]
        assert shared == pytest.approx(alone.losses[: len(shared)], rel=1e-4)
        if spec == outcome(recorder).spec:
            torch.testing.assert_close(
                outcome(recorder).adapter.to_row(runtime.basis),
                alone.outcome.adapter.to_row(runtime.basis),
                rtol=1e-3,
                atol=1e-4,
            )
            assert outcome(recorder).trained_tokens == alone.outcome.trained_tokens
            assert [e.step for e in outcome(recorder).curve.evaluations] == [0, 6, 12]


def test_where_row_shapes_allow_members_equal_their_jobs_alone_bit_for_bit(
    runtime: Runtime, examples: list[Example]
) -> None:
    """With a token budget of one row, every row goes through the model by itself, whoever shares the step."""

    def engine() -> TrainingEngine:
        return TrainingEngine(runtime, max_jobs=5, token_budget=1)

    recorder = SweepRecorder()
    run(engine(), sweep(examples, specs(*RATES), recorder))
    alone = Recorder()
    solo = engine()
    solo.add(TrainingJob("alone", outcome(recorder).spec, examples[:18], alone))
    while solo.step():
        pass
    assert outcome(recorder).curve == alone.outcome.curve
    assert outcome(recorder).adapter.files() == alone.outcome.adapter.files()


def test_the_leader_speaks_for_the_sweep_and_the_cost_is_everyones(
    engine: TrainingEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, costs = SweepRecorder(), list[float]()
    running = sweep(examples, specs(*RATES), recorder, valid=examples[18:])
    told = recorder.progress

    def progress(said: Any) -> None:
        own = [member.job.compute_seconds for member in running._runs]
        costs.append(running._measuring_seconds + sum(own))
        assert costs[-1] > max(own)
        told(said)

    monkeypatch.setattr(recorder, "progress", progress)
    run(engine, running)
    assert [progress.step for progress in recorder.progresses] == list(range(1, 13))
    assert recorder.progresses[-1].trained_tokens == outcome(recorder).trained_tokens
    assert recorder.progresses[0].learning_rate == SPEC.learning_rate_at(0, 12)  # the first, before anything is known
    last = recorder.progresses[-1]
    assert last.learning_rate == outcome(recorder).spec.learning_rate_at(11, 12)
    assert [progress.compute_seconds for progress in recorder.progresses] == costs == sorted(costs)
    assert [evaluation.step for evaluation in recorder.evaluations] == [0, 6, 12]


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 6, 11])
def test_a_resumed_sweep_ends_bit_for_bit_like_an_undisturbed_one(
    engine: TrainingEngine, examples: list[Example], steps: int
) -> None:
    undisturbed, before, resumed = SweepRecorder(), SweepRecorder(), SweepRecorder()
    options: dict[str, Any] = {"valid": examples[18:]}
    run(engine, sweep(examples, specs(*RATES), undisturbed, **options))
    stopped = sweep(examples, specs(*RATES), before, **options)
    stopped.join(engine)
    for _ in range(steps):
        engine.step()
    state = stopped.leave(engine)
    assert state is not None
    data = state.to_bytes()
    restored = SweepCheckpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
    assert restored.step == steps
    run(engine, sweep(examples, specs(*RATES), resumed, restored, **options))
    assert outcome(resumed).adapter.files() == outcome(undisturbed).adapter.files()
    assert outcome(resumed).curve == outcome(undisturbed).curve
    assert outcome(resumed).family == outcome(undisturbed).family
    assert outcome(resumed).trained_tokens == outcome(undisturbed).trained_tokens
    assert before.rungs + resumed.rungs == undisturbed.rungs
    assert stopped.leave(engine) is None


def test_every_checkpoint_continues_to_the_same_end(engine: TrainingEngine, examples: list[Example]) -> None:
    """Those that come by themselves; the fifth and later ones hold a member that has stopped early."""
    undisturbed = SweepRecorder()
    patient = [replace(spec, epochs=6, batch_size=9, early_stopping_patience=1) for spec in specs(30.0, 0.03)]
    options: dict[str, Any] = {"valid": examples[18:], "checkpoint_steps": 1}
    run(engine, sweep(examples, patient, undisturbed, **options))
    assert [checkpoint.step for checkpoint in undisturbed.checkpoints] == list(range(1, 13))
    assert family(undisturbed)[30.0][-1]["step"] == "4"
    for checkpoint in undisturbed.checkpoints:
        data = checkpoint.to_bytes()
        resumed = SweepRecorder()
        restored = SweepCheckpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
        run(engine, sweep(examples, patient, resumed, restored, **options))
        assert outcome(resumed).family == outcome(undisturbed).family
        assert outcome(resumed).adapter.files() == outcome(undisturbed).adapter.files()


def test_members_that_stop_early_are_judged_by_what_they_leave(engine: TrainingEngine, examples: list[Example]) -> None:
    """Six epochs of two steps. A rate that makes the loss rise again stops after its third, and loses at the halving
    there to one that learns: by its best state, which is that of the second."""
    recorder = SweepRecorder()
    running = [replace(spec, epochs=6, batch_size=9, early_stopping_patience=1) for spec in specs(20.0, 0.03)]
    run(engine, sweep(examples, running, recorder, valid=examples[18:]))
    lines = family(recorder)
    ends = {rate: (int(curve[-1]["step"]), curve[-1]["outcome"]) for rate, curve in lines.items()}
    assert ends == {20.0: (6, "discarded"), 0.03: (12, "chosen")}
    # The rows to choose by are the validation rows here.
    losses = [float(line["valid_loss"]) for line in lines[20.0] if line["valid_loss"]]
    assert losses[-1] > losses[-2] == min(losses)
    assert float(lines[20.0][-1]["sweep_loss"]) == pytest.approx(min(losses), rel=1e-4)
    assert [rung.step for rung in recorder.rungs] == [6]


def test_a_checkpoint_is_the_leaders_to_whoever_reads_it_as_a_jobs(
    engine: TrainingEngine, examples: list[Example]
) -> None:
    recorder = SweepRecorder()
    run(engine, sweep(examples, specs(*RATES), recorder, checkpoint_steps=4))
    data = recorder.checkpoints[-1].to_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    leader = Checkpoint.from_bytes(data, sha256)
    assert leader.spec["learning_rate"] == outcome(recorder).spec.learning_rate
    # Nobody can take it for a job's own, or the other way round.
    job = TrainingJob("job", outcome(recorder).spec, examples[:18], Recorder(), resume=leader)
    with pytest.raises(UserError, match="another"):
        engine.add(job)
    (alone,) = (Recorder(),)
    engine.add(TrainingJob("alone", SPEC, examples, alone))
    single = engine.remove(engine.jobs["alone"]).to_bytes()
    with pytest.raises(CorruptArtifact, match="sweep"):
        SweepCheckpoint.from_bytes(single, hashlib.sha256(single).hexdigest())
    restored = SweepCheckpoint.from_bytes(data, sha256)
    with pytest.raises(UserError, match="another sweep"):
        sweep(examples, specs(0.03, 0.01), SweepRecorder(), restored).join(engine)


def test_a_member_that_diverges_goes_and_the_others_go_on(engine: TrainingEngine, examples: list[Example]) -> None:
    recorder = SweepRecorder()
    running = sweep(examples, specs(0.03, 0.01, 0.1), recorder)
    running.join(engine)
    engine.step()
    engine.bank.write(engine.jobs["sweep/0"].slot, torch.full((engine.runtime.basis.row_length,), torch.nan), rank=16)
    while engine.step():
        pass
    curves = family(recorder)
    assert curves[0.03][-1]["outcome"] == "diverged"
    assert len(curves[0.03]) == 1
    assert outcome(recorder).spec.learning_rate in (0.01, 0.1)
    assert recorder.rungs[0].members[0]["fate"] == "diverged"
    assert math.isfinite(outcome(recorder).curve.losses[-1])


def test_only_when_all_diverge_the_job_fails_and_names_the_rates(
    engine: TrainingEngine, examples: list[Example]
) -> None:
    recorder = SweepRecorder()
    sweep(examples, specs(0.03, 0.01), recorder).join(engine)
    for job in engine.jobs.values():
        engine.bank.write(job.slot, torch.full((engine.runtime.basis.row_length,), torch.nan), rank=16)
    while engine.step():
        pass
    assert isinstance(recorder.error, NonFiniteLoss)
    assert recorder.error.fault == "user"
    assert "0.03 diverged" in recorder.error.message
    assert "0.01 diverged" in recorder.error.message
    assert recorder.outcome is None


def test_what_goes_wrong_otherwise_ends_the_sweep_once_and_no_one_else(
    engine: TrainingEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, neighbour = SweepRecorder(), Recorder()
    engine.add(TrainingJob("neighbour", SPEC, examples, neighbour))
    running = sweep(examples, specs(0.03, 0.01), recorder)
    running.join(engine)

    def broken(*_: Any) -> list[float]:
        raise RuntimeError("no memory")

    monkeypatch.setattr("osora_core.training.sweep.mean_losses", broken)
    while engine.step():
        pass
    assert str(recorder.error) == "no memory"
    assert neighbour.outcome is not None
    failures = []
    recorder.failed = failures.append  # type: ignore[method-assign]
    running.fail(RuntimeError("again"))
    assert failures == []


def test_a_sweep_joins_with_all_its_members_or_with_none(engine: TrainingEngine, examples: list[Example]) -> None:
    engine.add(TrainingJob("neighbour", SPEC, examples, Recorder()))
    with pytest.raises(OutOfSlots, match="a sweep of 5 needs 5 slots, and 4 are free"):
        sweep(examples, specs(*RATES), SweepRecorder()).join(engine)
    with pytest.raises(UserError, match="rank 17"):
        sweep(examples, specs(0.03, 0.01, rank=17), SweepRecorder()).join(engine)
    assert list(engine.jobs) == ["neighbour"]
    engine.discard(engine.jobs["neighbour"])


def test_a_sweep_waits_for_others_memory_and_never_for_its_own(
    runtime: Runtime, examples: list[Example], engine: TrainingEngine
) -> None:
    """Its members stay together: what does not fit the device as a whole is refused, though one of them would fit."""
    recorder = SweepRecorder()
    waiting = sweep(examples, specs(0.03, 0.01, 0.1), recorder)
    engine.memory.limit = engine.memory.needed([waiting.job] * 3)
    engine.add(TrainingJob("neighbour", SPEC, examples[:18], Recorder()))
    with pytest.raises(NotEnoughMemory):
        waiting.join(engine)
    assert list(engine.jobs) == ["neighbour"]
    with pytest.raises(JobTooLarge, match="a sweep of 4 needs") as refused:
        sweep(examples, specs(0.03, 0.01, 0.1, 0.2), SweepRecorder()).join(engine)
    assert refused.value.param == "osora.learning_rate"
    engine.discard(engine.jobs["neighbour"])
    run(engine, waiting)
    assert outcome(recorder).step == 12


def test_equal_members_go_in_the_order_in_which_they_were_listed(
    engine: TrainingEngine, examples: list[Example]
) -> None:
    """Where o alone is trained, the rate of s changes nothing."""
    recorder = SweepRecorder()
    equal = [replace(SPEC, train="o", sigma_rate=rate) for rate in (1.0, 2.0, 4.0)]
    run(engine, sweep(examples, equal, recorder))
    assert outcome(recorder).spec.sigma_rate == 1.0


def test_a_schedule_without_room_for_halvings_is_settled_at_its_end(
    engine: TrainingEngine, examples: list[Example]
) -> None:
    recorder = SweepRecorder()
    short = [replace(spec, epochs=1, batch_size=18) for spec in specs(1e-6, 0.03, 0.01)]
    run(engine, sweep(examples, short, recorder))
    assert outcome(recorder).step == 1
    assert outcome(recorder).spec.learning_rate == 0.03
    assert [lines[-1]["outcome"] for lines in family(recorder).values()] == ["discarded", "chosen", "discarded"]


@pytest.mark.parametrize(("rows", "held"), [(2, 1), (10, 1), (22, 2), (1000, 100), (5000, MAX_CHOICE_ROWS)])
def test_a_tenth_is_held_back(rows: int, held: int) -> None:
    examples: Any = list(range(rows))
    rest, choice = hold_back(examples, seed=3)
    assert (len(rest), len(choice)) == (rows - held, held)
    assert sorted([*rest, *choice]) == examples
    assert hold_back(examples, seed=3) == (rest, choice)


def test_few_rows_to_choose_by_are_taken_as_they_are_and_many_are_sampled(examples: list[Example]) -> None:
    assert hold_back(examples[:1], seed=0) == (examples[:1], examples[:1])
    assert choice_of(examples, seed=1) == examples
    many: Any = list(range(1000))
    assert len(choice_of(many, seed=1)) == MAX_CHOICE_ROWS
    assert choice_of(many, seed=1) == choice_of(many, seed=1) != choice_of(many, seed=2)
