"""No wake-up lies where nobody acts on it: a job that waits starts at whichever worker is free, and at once."""

import pytest

from tests.faults.strikes import Orders
from tests.faults.world import World, eventually

# What wakes a job is its own message, and not the reconciler.
LATE = "600"
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def all_run(world: World, job_ids: list[str]) -> bool:
    return all(world.job(job_id).status == "running" for job_id in job_ids)


@only_sqlite
def test_a_busy_worker_keeps_no_job_from_a_free_one(world: World) -> None:
    held = world.submit()
    busy = world.start_worker(Orders(slow_step=2.0), OSORA_WORKER_JOBS="1", OSORA_RECONCILE_SECONDS=LATE)
    world.wait_for(held, "running")
    free = world.start_worker(Orders(slow_step=0.2), OSORA_RECONCILE_SECONDS=LATE)
    busy.wait_until_ready()
    free.wait_until_ready()
    following = [world.submit() for _ in range(3)]
    eventually(lambda: all_run(world, following), "the free worker to run them together", seconds=10)
    assert all_run(world, [held])


@only_sqlite
def test_a_slot_that_gets_free_is_filled_at_once(world: World) -> None:
    queue = [world.submit(epochs=1) for _ in range(3)]
    world.start_worker(OSORA_WORKER_JOBS="1", OSORA_RECONCILE_SECONDS=LATE)
    attempts = []
    for job_id in queue:
        world.wait_for(job_id, "succeeded")
        attempts += world.attempts(job_id)
    ends = sorted(attempt.finished_at or 0 for attempt in attempts)
    starts = sorted(attempt.started_at for attempt in attempts)
    # Celery by itself looks up to ten seconds later.
    assert all(start - end <= 3 for end, start in zip(ends[:-1], starts[1:], strict=True))


@only_sqlite
def test_free_slots_are_filled_together(world: World) -> None:
    queue = [world.submit() for _ in range(4)]
    world.start_worker(Orders(slow_step=0.5), OSORA_WORKER_JOBS="4", OSORA_RECONCILE_SECONDS=LATE)
    eventually(lambda: all_run(world, queue), "all of them to run at once", seconds=20)
