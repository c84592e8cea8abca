"""How many jobs a worker takes at once: as many as it finds room for, unless an operator says."""

import pytest

from registry import workers
from tests.faults.strikes import Orders
from tests.faults.world import BASE, World, eventually

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize(("env", "slots"), [({"OMP_NUM_THREADS": "9"}, 9), ({"OSORA_WORKER_JOBS": "2"}, 2)])
def test_a_worker_says_how_many_jobs_it_takes_and_takes_as_many(world: World, env: dict[str, str], slots: int) -> None:
    """Nine cores are good for nine jobs, where memory does not say otherwise, which of so small a base it does not."""
    queue = [world.submit(epochs=1) for _ in range(slots + 1)]
    world.start_worker(Orders(slow_step=0.03), **env)

    def running() -> int:
        return sum(world.job(job_id).status == "running" for job_id in queue)

    eventually(lambda: running() == slots, f"{slots} jobs to run at once")
    with world.registry.reading() as session:
        (worker,) = workers.live(session, BASE, 60)
    assert worker.slots == slots
    for job_id in queue:
        assert running() <= slots
        world.assert_settled(world.wait_for(job_id, "succeeded"), "succeeded")
