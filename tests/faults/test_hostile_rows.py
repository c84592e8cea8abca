"""Rows that take long to read keep no other tenant's job from training, and stop when they are told to."""

from dataclasses import replace

import pytest

from registry import tenants
from tests.faults.strikes import SLOW_ROWS, Orders
from tests.faults.world import World, eventually


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_nine_jobs_of_one_tenant_do_not_hold_the_only_place_to_train_in(world: World) -> None:
    """Each of the nine would take twenty minutes to read."""
    hostile = [world.submit(word=SLOW_ROWS) for _ in range(9)]
    world.start_worker(Orders(slow_row=30), OSORA_WORKER_JOBS="1")
    eventually(lambda: any(world.job(job_id).status == "running" for job_id in hostile), "one of them to be read")
    with world.registry.transaction() as session:
        _, plaintext = tenants.create_key(session, "another", "test", tenants.ALL_SCOPES)
        another = replace(world, principal=tenants.authenticate(session, plaintext))
    healthy = [another.submit(epochs=1) for _ in range(2)]
    for job_id in healthy:
        another.wait_for(job_id, "succeeded")
    now = [world.job(job_id) for job_id in hostile]
    assert [job.status for job in now].count("running") == 1
    assert not any(job.step for job in now)
    for job_id in hostile:
        world.ask("cancel", job_id)
    for job_id in hostile:
        world.wait_for(job_id, "cancelled")
