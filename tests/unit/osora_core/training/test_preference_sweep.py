"""A sweep on preferences: chosen by their own loss, each member as it is alone, the reference read once for all."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from osora_core.adapter import Adapter
from osora_core.data import Example, Preference, Renderer, read_preferences
from osora_core.errors import OutOfSlots, UserError
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, Sweep, SweepCheckpoint, TrainingEngine, TrainingJob
from osora_core.training.errors import DeviceLostError, JobTooLarge
from osora_core.training.passes import Item, Passes, Scores
from tests.unit.osora_core.conftest import Recorder
from tests.unit.osora_core.training.methods.test_dpo import pairs_of, start
from tests.unit.osora_core.training.test_sweep import SweepRecorder, family, outcome, run

# Eight pairs in batches of 4: two steps an epoch, six in all, halvings after 2 and 4 for three members.
pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = JobSpec(seed=3, epochs=3, batch_size=4, rank=16, method="dpo", beta=0.5)
RATES = (1e-6, 0.02, 0.005)


@pytest.fixture(scope="module")
def pairs(runtime: Runtime) -> list[Preference]:
    return read_preferences(pairs_of(11), Renderer(runtime.tokenizer, runtime.max_length))


@pytest.fixture(params=["the base", "an adapter"])
def begun(request: pytest.FixtureRequest, runtime: Runtime) -> Adapter | None:
    """What the job begins with, and its preferences are compared with."""
    return start(runtime, 1) if request.param == "an adapter" else None


@pytest.fixture
def engine(runtime: Runtime) -> Iterator[TrainingEngine]:
    engine = TrainingEngine(runtime, max_jobs=4)
    yield engine
    assert not engine.step()
    assert (engine.bank.free, engine.after_step) == (4, {})


def specs(*rates: float, **changes: Any) -> list[JobSpec]:
    return [replace(SPEC, learning_rate=rate, **changes) for rate in rates]


def sweep(
    pairs: Sequence[Preference],
    recorder: SweepRecorder,
    begun: Adapter | None = None,
    resume: SweepCheckpoint | None = None,
    rates: Sequence[float] = RATES,
    **spec: Any,
) -> Sweep:
    """Trains on eight pairs, validates on the other three, and chooses by them."""
    members = specs(*rates, **spec)
    job = TrainingJob("sweep", members[0], pairs[:8], recorder, pairs[8:], start=begun)
    return Sweep(job, members, pairs[8:], recorder, resume)


def alone(engine: TrainingEngine, spec: JobSpec, pairs: Sequence[Preference], begun: Adapter | None) -> Recorder:
    recorder = Recorder()
    engine.add(TrainingJob("alone", spec, pairs[:8], recorder, pairs[8:], start=begun))
    while engine.step():
        pass
    return recorder


def test_the_worse_half_goes_by_the_loss_of_held_back_pairs(
    engine: TrainingEngine, pairs: list[Preference], begun: Adapter | None
) -> None:
    recorder = SweepRecorder()
    run(engine, sweep(pairs, recorder, begun))
    curves = family(recorder)
    ends = {rate: (lines[-1]["step"], lines[-1]["outcome"]) for rate, lines in curves.items()}
    assert ends == {1e-6: ("2", "discarded"), 0.005: ("4", "discarded"), 0.02: ("6", "chosen")}
    assert [rung.step for rung in recorder.rungs] == [2, 4]
    # The pairs to choose by are the validation pairs here, and a halving falls on the end of each epoch.
    for lines in curves.values():
        measured = {line["step"]: float(line["sweep_loss"]) for line in lines if line["sweep_loss"]}
        valid = {line["step"]: float(line["valid_loss"]) for line in lines if line["valid_loss"]}
        assert measured == pytest.approx({step: valid[step] for step in measured}, rel=1e-4)
    assert outcome(recorder).curve.evaluations[-1].loss < 0.6 < float(curves[1e-6][-1]["sweep_loss"])
    assert outcome(recorder).curve.evaluations[-1].reward_margin is not None


def test_members_learn_what_each_learns_alone(
    runtime: Runtime, engine: TrainingEngine, pairs: list[Preference], begun: Adapter | None
) -> None:
    recorder = SweepRecorder()
    run(engine, sweep(pairs, recorder, begun))
    curves = family(recorder)
    for spec in specs(*RATES):
        solo = alone(engine, spec, pairs, begun)
        losses = [float(line["train_loss"]) for line in curves[spec.learning_rate] if line["train_loss"]]
        assert losses == pytest.approx(solo.losses[: len(losses)], rel=1e-4)
        if spec == outcome(recorder).spec:
            mine, theirs = (one.adapter.to_row(runtime.basis) for one in (outcome(recorder), solo.outcome))
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
            assert outcome(recorder).trained_tokens == solo.outcome.trained_tokens
            assert outcome(recorder).trained_tokens == 3 * sum(map(len, pairs[:8]))  # both answers of each pair


@pytest.mark.parametrize("options", [{"token_budget": 1}, {"apart": True}])
def test_where_row_shapes_allow_members_equal_their_jobs_alone_bit_for_bit(
    runtime: Runtime, pairs: list[Preference], begun: Adapter | None, options: dict[str, Any]
) -> None:
    """With a token budget of one row, every row goes through the model by itself, whoever shares the step; and no job
    shares a pass with another that is to be apart."""
    recorder = SweepRecorder()
    run(TrainingEngine(runtime, max_jobs=4, **options), sweep(pairs, recorder, begun))
    chosen = outcome(recorder).spec
    solo = alone(TrainingEngine(runtime, max_jobs=4, **options), chosen, pairs, begun)
    assert outcome(recorder).curve == solo.outcome.curve
    assert outcome(recorder).adapter.files() == solo.outcome.adapter.files()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_resumed_sweep_ends_bit_for_bit_like_an_undisturbed_one(
    engine: TrainingEngine, pairs: list[Preference], begun: Adapter | None, steps: int
) -> None:
    undisturbed, before, resumed = SweepRecorder(), SweepRecorder(), SweepRecorder()
    run(engine, sweep(pairs, undisturbed, begun))
    stopped = sweep(pairs, before, begun)
    stopped.join(engine)
    for _ in range(steps):
        engine.step()
    state = stopped.leave(engine)
    assert state is not None
    assert engine.bank.free == 4
    data = state.to_bytes()
    restored = SweepCheckpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
    run(engine, sweep(pairs, resumed, begun, restored))
    assert outcome(resumed).adapter.files() == outcome(undisturbed).adapter.files()
    assert outcome(resumed).curve == outcome(undisturbed).curve
    assert outcome(resumed).family == outcome(undisturbed).family
    assert before.rungs + resumed.rungs == undisturbed.rungs


class Counting(Passes):
    """Keeps how often each slot's rows were scored."""

    def scores(self, items: Sequence[Item], slots: Sequence[int]) -> Scores:
        self.__dict__.setdefault("seen", Counter()).update(slots[owner] for _, owner in items)
        return super().scores(items, slots)


@pytest.mark.parametrize("members", [1, 3])
def test_the_reference_is_read_once_for_all_members(
    runtime: Runtime, pairs: list[Preference], begun: Adapter | None, members: int
) -> None:
    """Once a step for its batch, and once in all for the pairs to validate on and those to choose by: of each pair both
    answers."""
    engine = TrainingEngine(runtime, max_jobs=4, passes=Counting)
    running = sweep(pairs, SweepRecorder(), begun, rates=RATES[:members])
    running.join(engine)
    reference = running.job.reference.slot
    assert (reference > 0) == (begun is not None)
    while engine.step():
        pass
    sets = 1 if members == 1 else 2  # a sweep of one has nothing to choose
    assert engine.passes.seen[reference] == 2 * (3 * 8 + sets * 3)  # type: ignore[attr-defined]


def test_members_that_end_side_by_side_are_compared_with_the_reference_that_they_had(
    engine: TrainingEngine, pairs: list[Preference], begun: Adapter | None
) -> None:
    """A single step leaves no room for a halving: when the two are measured, none is in the engine any more."""
    recorder = SweepRecorder()
    run(engine, sweep(pairs, recorder, begun, rates=(1e-6, 0.02), epochs=1, batch_size=8))
    assert outcome(recorder).step == 1
    assert outcome(recorder).spec.learning_rate == 0.02
    last = family(recorder)[0.02][-1]
    assert float(last["sweep_loss"]) == pytest.approx(float(last["valid_loss"]), rel=1e-4)


def test_a_sweep_that_begins_with_an_adapter_needs_a_slot_more_than_members(
    runtime: Runtime, engine: TrainingEngine, pairs: list[Preference]
) -> None:
    begun = start(runtime, 1)
    engine.add(TrainingJob("neighbour", specs(0.02)[0], pairs, Recorder()))
    with pytest.raises(OutOfSlots, match="a sweep of 3 needs 4 slots, and 3 are free"):
        sweep(pairs, SweepRecorder(), begun).join(engine)
    compared_with_the_base = sweep(pairs, SweepRecorder())
    compared_with_the_base.join(engine)
    compared_with_the_base.discard(engine)
    engine.discard(engine.jobs["neighbour"])
    with pytest.raises(UserError, match="rank 17"):
        sweep(pairs, SweepRecorder(), rates=(0.1, 0.2), rank=17).join(engine)


def test_a_pair_takes_the_memory_of_one_answer_at_once_and_of_both_in_a_batch(runtime: Runtime) -> None:
    """With a budget below the answers' length, and with one that takes the whole batch."""
    answer = Example((1,) * 40, (True,) * 40, 1)
    pairs = TrainingJob("pairs", SPEC, [Preference(answer, answer, 1)] * 4, Recorder())
    answers = TrainingJob("answers", JobSpec(batch_size=8, rank=16), [answer] * 8, Recorder())
    for budget in (30, 8192):
        memory = TrainingEngine(runtime, token_budget=budget).memory
        assert memory.needed([pairs]) == memory.needed([answers])
    with pytest.raises(JobTooLarge, match="longest row has 40 tokens"):
        TrainingEngine(runtime, memory_limit=1000).add(pairs)


def test_pairs_that_break_the_model_end_their_own_job(
    engine: TrainingEngine, pairs: list[Preference], runtime: Runtime
) -> None:
    bad = Example((1, 10**6, 2), (True,) * 3, 1)
    failing, recorder = Recorder(), SweepRecorder()
    engine.add(TrainingJob("broken", SPEC, [Preference(bad, bad, 1)], failing))
    run(engine, sweep(pairs, recorder))
    assert isinstance(failing.error, IndexError)
    solo = alone(TrainingEngine(runtime, max_jobs=4), outcome(recorder).spec, pairs, None)
    assert outcome(recorder).curve.losses == pytest.approx(solo.losses, rel=1e-4)


def test_a_member_that_diverges_goes_and_the_others_go_on(engine: TrainingEngine, pairs: list[Preference]) -> None:
    recorder = SweepRecorder()
    running = sweep(pairs, recorder)
    running.join(engine)
    engine.step()
    engine.bank.write(engine.jobs["sweep/0"].slot, torch.full((engine.runtime.basis.row_length,), torch.nan), rank=16)
    while engine.step():
        pass
    assert family(recorder)[1e-6][-1]["outcome"] == "diverged"
    assert outcome(recorder).spec.learning_rate == 0.02


def test_rows_of_the_other_kind_are_refused_by_their_line(pairs: list[Preference], examples: list[Example]) -> None:
    with pytest.raises(UserError, match="line 1 is of the type Example"):
        TrainingJob("job", SPEC, pairs, Recorder(), examples[:1])
    with pytest.raises(UserError, match="supervised learns from rows of the type Example, and line 3"):
        TrainingJob("job", replace(SPEC, method="supervised"), [*examples, pairs[2]], Recorder())


def test_where_others_take_part_in_a_pass_one_that_failed_is_not_made_again(
    runtime: Runtime, pairs: list[Preference], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how far they have come: the engine fails as a whole."""

    def lost(*_: object) -> None:
        raise DeviceLostError("a test")

    for action in ("scores", "backward"):
        engine = TrainingEngine(runtime, max_jobs=4)
        for name in ("one", "two"):
            engine.add(TrainingJob(name, SPEC, pairs, Recorder(), pairs[:2]))
        with monkeypatch.context() as patch:
            patch.setattr(Passes, action, lost)
            with pytest.raises(DeviceLostError):
                engine.step()
        assert list(engine.jobs) == ["one", "two"]
