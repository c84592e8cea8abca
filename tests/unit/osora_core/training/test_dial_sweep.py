"""A sweep over points of the dial: members of other ranks and mixes side by side, each as if it were alone."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from osora_core.data import Example
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, SweepCheckpoint, TrainingEngine, TrainingJob
from osora_core.training.errors import JobTooLarge
from tests.unit.osora_core.conftest import Recorder
from tests.unit.osora_core.training.test_sweep import SweepRecorder, outcome, run, sweep

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = JobSpec(seed=5, epochs=2, batch_size=3, rank=16, learning_rate=0.03)
MIXED = replace(SMALL, rank=8, mix=4, learning_rate=0.02)
WIDE = replace(SMALL, mix=8, learning_rate=1e-7)  # too slow to win
POINTS = (SMALL, MIXED, WIDE)


def alone(runtime: Runtime, examples: Sequence[Example], spec: JobSpec) -> Recorder:
    engine, recorder = TrainingEngine(runtime, max_jobs=1), Recorder()
    engine.add(TrainingJob("alone", spec, examples[:18], recorder))
    while engine.step():
        pass
    return recorder


@pytest.mark.parametrize("winner", [SMALL, MIXED])
def test_the_best_point_is_what_it_would_be_alone(runtime: Runtime, examples: list[Example], winner: JobSpec) -> None:
    loser = replace(MIXED if winner is SMALL else SMALL, learning_rate=1e-7)
    for members in ([winner, loser, WIDE], [WIDE, loser, winner]):
        engine, recorder = TrainingEngine(runtime, max_jobs=3), SweepRecorder()
        run(engine, sweep(examples, members, recorder))
        found, expected = outcome(recorder), alone(runtime, examples, winner).outcome
        assert expected is not None
        assert found.spec == winner
        assert (found.adapter.rank, found.adapter.mix_size) == winner.shape
        torch.testing.assert_close(
            found.adapter.to_row(runtime.basis), expected.adapter.to_row(runtime.basis), rtol=1e-3, atol=1e-5
        )
        assert found.choice_losses is not None
        assert found.choice_losses[0] > found.choice_losses[1]
        assert (engine.bank.free, engine.bank.mixes) == (3, {})


def test_it_goes_on_from_a_checkpoint_and_keeps_each_members_shape(runtime: Runtime, examples: list[Example]) -> None:
    straight = SweepRecorder()
    run(TrainingEngine(runtime, max_jobs=3), sweep(examples, POINTS, straight))
    engine, recorder = TrainingEngine(runtime, max_jobs=3), SweepRecorder()
    work = sweep(examples, POINTS, recorder)
    work.join(engine)
    engine.step()
    checkpoint = work.leave(engine)
    assert checkpoint is not None
    data = checkpoint.to_bytes()
    again = SweepCheckpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
    assert [member.spec.shape for member in again.members] == [spec.shape for spec in POINTS]
    resumed = SweepRecorder()
    run(TrainingEngine(runtime, max_jobs=3), sweep(examples, POINTS, resumed, again))
    assert outcome(resumed).spec == outcome(straight).spec
    assert outcome(resumed).adapter.to_zip() == outcome(straight).adapter.to_zip()


def test_the_curves_say_which_point_is_whose(runtime: Runtime, examples: list[Example]) -> None:
    recorder = SweepRecorder()
    run(TrainingEngine(runtime, max_jobs=3), sweep(examples, POINTS, recorder))
    lines = list(csv.DictReader(io.StringIO(outcome(recorder).family)))
    assert {(int(line["rank"]), int(line["mix"])) for line in lines} == {spec.shape for spec in POINTS}
    assert {line["mix_rate"] for line in lines if line["mix"] == "0"} == {""}
    assert {(row["rank"], row["mix"]) for row in recorder.rungs[0].members} == {spec.shape for spec in POINTS}


def test_presets_that_have_no_room_are_named_as_such(runtime: Runtime, examples: list[Example]) -> None:
    for members, param in (
        (POINTS, "osora.preset"),
        ((SMALL, replace(SMALL, learning_rate=1.0)), "osora.learning_rate"),
    ):
        with pytest.raises(JobTooLarge, match="slots") as refused:
            sweep(examples, members, SweepRecorder()).join(TrainingEngine(runtime, max_jobs=1))
        assert refused.value.param == param
