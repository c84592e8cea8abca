"""kill -9 wherever it hurts: another worker ends the job as if nothing had happened."""

import signal
from typing import Any

import pytest

from registry.outbox import TRAIN_TASK, train_queue
from tests.faults.strikes import MID_STEP, Orders, Strike
from tests.faults.world import BASE, Result, World, eventually


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("claimed", 1),
        (MID_STEP, 13),
        ("checkpoint_uploading", 3),
        ("checkpoint_uploaded", 3),
        ("checkpoint_recorded", 3),
        ("adapter_uploaded", 1),
    ],
)
def test_a_killed_workers_job_ends_as_if_undisturbed(world: World, undisturbed: Result, point: str, nth: int) -> None:
    job_id = world.submit()
    victim = world.start_worker(Orders(Strike(point, "kill", nth)))
    assert victim.wait() == -9
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["lost", "succeeded"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_killed_job_stops_where_it_would_have_and_keeps_the_same_state(world: World) -> None:
    """It goes on from another job's checkpoint, and its validation loss soon rises: killed after its best state."""
    first = world.submit()
    world.start_worker().wait_until_ready()
    world.wait_for(first, "succeeded")
    checkpoint = f"ftckpt_{first[-16:]}_10"
    knobs: dict[str, Any] = {"from_adapter": checkpoint, "validate_on": "please wait", "early_stopping_patience": 1}
    knobs |= {"sample_prompts": ["help 1"], "sample_tokens": 3}
    expected = world.submit(**knobs)
    world.wait_for(expected, "succeeded")
    world.workers[0].send(signal.SIGTERM)
    assert world.workers[0].wait() == 0
    job_id = world.submit(**knobs)
    victim = world.start_worker(Orders(Strike("checkpoint_recorded", "kill", 5)))
    assert victim.wait() == -9
    world.start_worker()
    world.assert_undisturbed(job_id, world.result(expected))
    step = world.job(expected).step
    assert world.job(job_id).step == step < 40
    assert world.said(job_id, f"Keeping the state of step {step - 10}")
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["lost", "succeeded"]


def test_a_worker_killed_after_its_last_commit_has_finished_the_job(world: World, undisturbed: Result) -> None:
    job_id = world.submit()
    victim = world.start_worker(Orders(Strike("completed", "kill")))
    assert victim.wait() == -9
    world.assert_undisturbed(job_id, undisturbed)
    heir = world.start_worker()  # with nothing to do
    heir.wait_until_ready()
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["succeeded"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(world: World, undisturbed: Result) -> None:
    job_id = world.submit()
    victim = world.start_worker(Orders(Strike("checkpoint_recorded", "kill", 4)))
    assert victim.wait() == -9
    newest = f"checkpoints/{job_id}/1/20.safetensors"
    whole = world.registry.store.get(newest)
    world.registry.store.put(newest, whole[: len(whole) // 2])
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)
    assert world.said(job_id, "the checkpoint of step 20 cannot be used")
    assert [attempt.first_step for attempt in world.attempts(job_id)] == [0, 15]


def test_with_both_checkpoints_damaged_the_job_begins_anew(world: World, undisturbed: Result) -> None:
    job_id = world.submit()
    victim = world.start_worker(Orders(Strike("checkpoint_recorded", "kill", 4)))
    assert victim.wait() == -9
    world.registry.store.put(f"checkpoints/{job_id}/1/20.safetensors", b"\0" * 64)
    world.registry.store.delete(f"checkpoints/{job_id}/1/15.safetensors")
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)
    assert [attempt.first_step for attempt in world.attempts(job_id)] == [0, 0]


def test_a_job_that_kills_its_workers_fails_and_takes_no_other_with_it(world: World, undisturbed: Result) -> None:
    """Both are lost twice, because they share a worker. The third time each of them is alone with one."""
    poison = world.submit(publish=False)
    innocent = world.submit(publish=False)
    world.publisher.relay(world.registry)
    orders = Orders(Strike("checkpoint_recorded", "kill", job_id=poison), slow_step=0.02)
    worker = world.start_worker(orders)

    def both_have_ended() -> bool:
        nonlocal worker
        if worker.exit_code is not None:
            worker = world.start_worker(orders)
        return all(world.job(job_id).is_terminal for job_id in (poison, innocent))

    eventually(both_have_ended, "the ends of both jobs")
    failed = world.job(poison)
    world.assert_settled(failed, "failed")
    assert failed.error is not None
    assert (failed.error["code"], failed.error["fault"]) == ("worker_lost", "platform")
    history = world.attempts(poison)
    assert [attempt.outcome for attempt in history] == ["lost"] * 3
    assert all("stopped renewing its lease" in (attempt.reason or "") for attempt in history)
    # Alone it trained to its end: what it shared before was a step, not its numbers. Shared steps differ by rounding.
    world.assert_settled(world.job(innocent), "succeeded")


def test_a_wrong_clock_in_the_worker_changes_nothing(world: World, undisturbed: Result) -> None:
    """Leases, retries and estimates go by the database's clock."""
    job_id = world.submit()
    world.start_worker(Orders(clock_offset=3600.0, slow_step=0.2))
    estimate = eventually(lambda: world.job(job_id).estimated_finish, "an estimate")
    assert abs(estimate - world.job(job_id).created_at) < 1800
    world.assert_undisturbed(job_id, undisturbed)
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["succeeded"]


def test_messages_that_come_ten_times_start_one_attempt(world: World, undisturbed: Result) -> None:
    job_id = world.submit()
    for _ in range(9):
        world.publisher(train_queue(BASE), TRAIN_TASK, [BASE])
    for worker in [world.start_worker(), world.start_worker()]:
        worker.wait_until_ready()
    world.assert_undisturbed(job_id, undisturbed)
    eventually(lambda: world.publisher.waiting(train_queue(BASE)) == 0, "an empty queue")
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["succeeded"]
