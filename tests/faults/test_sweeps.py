"""A sweep is one job: whatever befalls its worker, the same member wins with the same curves of all."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import run_undisturbed
from tests.faults.strikes import MID_STEP, Action, Orders, Strike
from tests.faults.world import Nursery, Result, World, eventually

# The first is the best from the beginning, so that the event stream tells its curve and no other's. Halvings come
# after 13 and 27 of the 40 steps.
RATES = [0.1, 0.003, 1e-6]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def outcomes(result: Result) -> dict[float, tuple[str, str]]:
    """Where each rate ended, and as what."""
    assert result.family is not None
    lines = list(csv.DictReader(io.StringIO(result.family.decode())))
    return {float(line["learning_rate"]): (line["step"], line["outcome"]) for line in lines if line["outcome"]}


@pytest.fixture(scope="module")
def undisturbed_sweep(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, base: Path) -> Result:
    result = run_undisturbed(tmp_path_factory.mktemp("sweep"), nursery, base, learning_rate=RATES)
    assert outcomes(result) == {0.1: ("40", "chosen"), 0.003: ("27", "discarded"), 1e-6: ("13", "discarded")}
    return result


@pytest.mark.parametrize(
    ("point", "nth", "action"),
    [
        (MID_STEP, 23, "kill"),
        ("checkpoint_recorded", 2, "kill"),
        ("stepped", 17, "terminate"),
    ],
)
def test_a_sweep_ends_as_if_undisturbed(
    world: World, undisturbed_sweep: Result, point: str, nth: int, action: Action
) -> None:
    job_id = world.submit(learning_rate=RATES)
    victim = world.start_worker(Orders(Strike(point, action, nth), slow_step=0.01))
    assert victim.wait() == (-9 if action == "kill" else 0)
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed_sweep)
    assert len(world.attempts(job_id)) == 2
    assert [event.message for event in world.events(job_id) if "a sweep of 3 rates" in event.message][1:] == []


def test_a_sweep_on_preferences_ends_as_if_undisturbed(
    world: World, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, base: Path
) -> None:
    """Killed between its two halvings, when a checkpoint has been stored: two of three members go on from it."""
    asked: dict[str, Any] = {"method": "dpo", "epochs": 1, "learning_rate": [0.03, 0.003, 1e-6]}
    undisturbed = run_undisturbed(tmp_path_factory.mktemp("preferences"), nursery, base, **asked)
    assert outcomes(undisturbed) == {0.03: ("10", "chosen"), 0.003: ("7", "discarded"), 1e-6: ("3", "discarded")}
    job_id = world.submit(**asked)
    victim = world.start_worker(Orders(Strike("checkpoint_recorded", "kill"), slow_step=0.03))
    assert victim.wait() == -9
    assert world.said(job_id, "Sweep after step 3")
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)
    assert [attempt.first_step for attempt in world.attempts(job_id)] == [0, 5]


def test_a_sweep_can_be_paused_and_resumed(world: World, undisturbed_sweep: Result) -> None:
    job_id = world.submit(learning_rate=RATES)
    world.start_worker(Orders(slow_step=0.2))
    eventually(lambda: world.said(job_id, "Sweep after step 13"), "the first halving")
    world.ask("pause", job_id)
    world.wait_for(job_id, "paused")
    assert world.job(job_id).result_file_ids == []
    world.ask("resume", job_id)
    world.publisher.relay(world.registry)
    world.assert_undisturbed(job_id, undisturbed_sweep)


def test_a_sweep_waits_for_slots_and_a_job_never_does(world: World) -> None:
    """A worker for four jobs has four slots more for the further members of sweeps: two sweeps of three fit, and
    beside them a job."""
    first, second, third = (world.submit(publish=False, epochs=1, learning_rate=RATES) for _ in range(3))
    single = world.submit(publish=False, epochs=1)
    world.publisher.relay(world.registry)
    world.start_worker(Orders(slow_step=0.01), OSORA_WORKER_JOBS="4")
    for job_id in (first, second, third, single):
        world.assert_settled(world.wait_for(job_id, "succeeded"), "succeeded")
    assert sum(world.said(job_id, "Waiting until other sweeps have ended") for job_id in (first, second, third)) == 1
    assert not world.said(single, "Waiting")
