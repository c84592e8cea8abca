"""Cancel, pause, resume, and a worker that is asked to stop: obeyed within a step or two seconds, and nothing lost."""

import signal
import time

import pytest

from tests.faults.strikes import MID_STEP, Orders, Strike
from tests.faults.world import Result, World, eventually

PROMPT_STEPS = 10
"""Two seconds, of steps that take a fifth of one; on a busy machine they take longer, and so does all else."""
DRAIN_SECONDS = 20.0


def test_a_running_job_is_cancelled_at_once(world: World) -> None:
    job_id = world.submit()
    world.start_worker(Orders(slow_step=0.2))
    eventually(lambda: world.job(job_id).step > 0, "the first step")
    world.ask("cancel", job_id)
    asked_at = world.job(job_id).step
    job = world.wait_for(job_id, "cancelled")
    assert job.step <= asked_at + PROMPT_STEPS
    world.assert_settled(job, "cancelled")
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["cancelled"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("env", "knobs", "first"),
    [
        ({"OSORA_CHECKPOINT_STEPS": "7"}, {"checkpoint_steps": None}, 7),
        ({"OSORA_CHECKPOINT_STEPS": "7"}, {"checkpoint_steps": 9}, 9),
        ({}, {"checkpoint_steps": None, "checkpoint_seconds": 0.001}, 1),
    ],
    ids=["by the setting", "by the job's steps", "by the job's seconds"],
)
def test_how_often_a_job_is_checkpointed_can_be_said(
    world: World, undisturbed: Result, env: dict[str, str], knobs: dict[str, float | None], first: int
) -> None:
    job_id = world.submit(**knobs)
    world.start_worker(Orders(slow_step=0.02), **env)
    world.assert_undisturbed(job_id, undisturbed)
    made = [event.message for event in world.events(job_id) if event.message.startswith("Checkpoint created")]
    step = int(made[0].removeprefix("Checkpoint created at step "))
    # One that is due by time waits for a moment in which the one before, of the start, is not still being sent.
    assert first <= step <= first + (2 if "checkpoint_seconds" in knobs else 0)


def test_a_job_cancelled_before_its_start_never_starts(world: World) -> None:
    job_id = world.submit()
    world.ask("cancel", job_id)
    other = world.submit()
    world.start_worker()
    world.wait_for(other, "succeeded")  # the message of the first came before this one's
    world.assert_settled(world.job(job_id), "cancelled")
    assert world.attempts(job_id) == []


def test_a_paused_job_goes_on_in_another_worker(world: World, undisturbed: Result) -> None:
    job_id = world.submit(checkpoint_steps=1000)
    first = world.start_worker(Orders(slow_step=0.2))
    eventually(lambda: world.job(job_id).step >= 3, "some steps")
    world.ask("pause", job_id)
    asked_at = world.job(job_id).step
    assert world.wait_for(job_id, "paused").step <= asked_at + PROMPT_STEPS
    first.send(signal.SIGTERM)
    assert first.wait(DRAIN_SECONDS) == 0
    world.start_worker()
    world.ask("resume", job_id)
    world.assert_undisturbed(job_id, undisturbed)
    paused, finished = world.attempts(job_id)
    assert (paused.outcome, finished.outcome) == ("paused", "succeeded")
    assert finished.first_step >= 3  # exactly where it was, though no checkpoint was due
    assert paused.last_step <= finished.first_step


def test_a_pause_can_be_withdrawn_before_it_happens(world: World, undisturbed: Result) -> None:
    job_id = world.submit()
    world.start_worker(Orders(slow_step=0.2))
    eventually(lambda: world.job(job_id).step > 0, "the first step")
    world.ask("pause", job_id)
    world.ask("resume", job_id)
    world.assert_undisturbed(job_id, undisturbed)


@pytest.mark.parametrize(
    ("point", "nth"),
    [("claimed", 1), ("joined", 1), (MID_STEP, 13), ("checkpoint_uploading", 2), ("adapter_uploading", 1)],
)
def test_a_worker_that_is_asked_to_stop_loses_nothing(world: World, undisturbed: Result, point: str, nth: int) -> None:
    """In every phase: it lets go within 20 seconds, no attempt is spent, and another goes on at once."""
    job_id = world.submit()
    worker = world.start_worker(Orders(Strike(point, "terminate", nth), slow_step=0.1))
    worker.wait_until_struck()
    asked = time.monotonic()
    assert worker.wait(DRAIN_SECONDS) == 0
    assert time.monotonic() - asked < DRAIN_SECONDS
    job = world.job(job_id)
    assert job.attempts_spent == 0
    if point != "adapter_uploading":  # what is about to be published is published
        assert job.status == "queued"
        assert [attempt.outcome for attempt in world.attempts(job_id)] == ["released"]
        assert world.attempts(job_id)[0].reason == "its worker is stopping"
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_worker_stops_in_time_though_the_object_store_is_away(world: World, undisturbed: Result) -> None:
    """The lease is given back; the job goes on from the checkpoint before the outage."""
    job_id = world.submit()
    worker = world.start_worker(Orders(Strike("checkpoint_uploading", "disk_full", nth=3, times=1000), slow_step=0.1))
    worker.wait_until_struck()
    worker.send(signal.SIGTERM)
    assert worker.wait(DRAIN_SECONDS) == 0
    assert world.job(job_id).attempts_spent == 0
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)
    assert [attempt.first_step for attempt in world.attempts(job_id)] == [0, 10]
