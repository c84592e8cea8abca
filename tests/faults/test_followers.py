"""A worker of two devices loses one: it ends as a whole, and the job goes on elsewhere as if nothing had happened."""

import signal

import psutil
import pytest

from tests.faults.strikes import Orders
from tests.faults.world import WorkerProcess, World, eventually

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

DEVICES = {"OSORA_WORKER_DEVICES": "2"}


def follower_of(worker: WorkerProcess) -> psutil.Process:
    children = psutil.Process(worker.pid).children()
    (follower,) = (child for child in children if "worker.follower" in " ".join(child.cmdline()))
    return follower


def test_a_killed_follower_ends_its_worker_and_no_job(world: World) -> None:
    undisturbed_id = world.submit()
    first = world.start_worker(**DEVICES)
    world.wait_for(undisturbed_id, "succeeded")
    first.send(signal.SIGTERM)  # its successor is slow enough to be caught in the act
    assert first.wait() == 0
    job_id = world.submit()
    victim = world.start_worker(Orders(slow_step=0.1), **DEVICES)
    eventually(lambda: (world.job(job_id).step or 0) >= 7, "a job that is under way")
    follower_of(victim).kill()
    assert victim.wait() == 1
    world.start_worker(**DEVICES)
    world.assert_undisturbed(job_id, world.result(undisturbed_id))
    assert len(world.attempts(job_id)) == 2


def test_a_follower_ends_with_its_worker_and_the_worker_with_its_follower(world: World) -> None:
    for struck in ("worker", "follower"):
        worker = world.start_worker(**DEVICES)
        worker.wait_until_ready()
        follower = follower_of(worker)
        if struck == "worker":
            worker.send(signal.SIGKILL)
            follower.wait(60)  # raises if it does not end
        else:
            follower.kill()
            assert worker.wait() == 1
