"""No wake-up lies where nobody acts on it: a job that waits starts at whichever worker is free, and at once."""

import signal
from dataclasses import replace

import pytest

from registry import tenants
from tests.faults.strikes import Orders
from tests.faults.world import World, eventually

# What wakes a job is its own message, and not the reconciler.
LATE = "600"
# Of a job that must not end while the test looks.
LONG = 40
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def all_run(world: World, job_ids: list[str]) -> bool:
    return all(world.job(job_id).status == "running" for job_id in job_ids)


@only_sqlite
def test_a_busy_worker_keeps_no_job_from_a_free_one(world: World) -> None:
    held = world.submit(epochs=LONG)
    busy = world.start_worker(Orders(slow_step=2.0), OSORA_WORKER_JOBS="1", OSORA_RECONCILE_SECONDS=LATE)
    world.wait_for(held, "running")
    free = world.start_worker(Orders(slow_step=1.0), OSORA_RECONCILE_SECONDS=LATE)
    busy.wait_until_ready()
    free.wait_until_ready()
    following = [world.submit(epochs=LONG) for _ in range(3)]
    eventually(lambda: all_run(world, following), "the free worker to run them together")
    assert all_run(world, [held])


@only_sqlite
def test_free_slots_are_filled_together(world: World) -> None:
    queue = [world.submit(epochs=LONG) for _ in range(4)]
    world.start_worker(Orders(slow_step=1.0), OSORA_WORKER_JOBS="4", OSORA_RECONCILE_SECONDS=LATE)
    eventually(lambda: all_run(world, queue), "all of them to run at once")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_interrupted_job_goes_first_and_then_the_tenant_that_waits(world: World) -> None:
    interrupted, second = world.submit(epochs=LONG), world.submit(epochs=1)
    worker = world.start_worker(Orders(slow_step=0.5), OSORA_WORKER_JOBS="1", OSORA_RECONCILE_SECONDS=LATE)
    eventually(lambda: "running" in (world.job(interrupted).status, world.job(second).status), "a job to run")
    assert world.job(interrupted).status == "running"
    with world.registry.transaction() as session:
        _, plaintext = tenants.create_key(session, "another", "test", tenants.ALL_SCOPES)
        another = replace(world, principal=tenants.authenticate(session, plaintext))
    third = another.submit(epochs=1)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    world.start_worker(OSORA_WORKER_JOBS="1", OSORA_RECONCILE_SECONDS=LATE)
    world.wait_for(second, "succeeded")
    claimed = {job.id: job.claimed_at for job in (world.job(interrupted), world.job(second), another.job(third))}
    assert sorted(claimed, key=lambda job_id: claimed[job_id] or 0) == [interrupted, third, second]
