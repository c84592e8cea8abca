"""A worker sleeps for longer than its lease, as a laptop does, and then claims the very job that it has lost."""

import re
import signal

from registry import jobs
from tests.faults.strikes import MID_STEP, Orders, Strike
from tests.faults.world import LEASE_SECONDS, Result, World, eventually

# The second attempt takes so long that it is lost as well if its lease is not renewed.
SLOW_STEP = 3 * LEASE_SECONDS / 30


def test_a_worker_wins_its_own_job_back(world: World, undisturbed: Result) -> None:
    job_id = world.submit()
    orders = Orders(Strike(MID_STEP, "oversleep", nth=13), slow_step=SLOW_STEP, watch_slots=True)
    worker = world.start_worker(orders, OSORA_WORKER_JOBS="2")
    worker.wait_until_stopped()
    eventually(lambda: lease_is_over(world), "the lease to run out")
    worker.send(signal.SIGCONT)
    world.assert_undisturbed(job_id, undisturbed)
    lost, won = world.attempts(job_id)
    assert (lost.outcome, won.outcome) == ("lost", "succeeded")
    assert lost.worker_id == won.worker_id

    further = world.submit()
    world.assert_undisturbed(further, undisturbed)
    taken = re.findall(r"(\d+) slots for (\d+) jobs", worker.log)
    assert taken
    assert all(slots == held for slots, held in taken), "a slot has leaked"
    assert "Traceback" not in worker.log

    last = world.submit()
    eventually(lambda: world.job(last).step > 0, "a job to be interrupted")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert [attempt.outcome for attempt in world.attempts(last)] == ["released"]


def lease_is_over(world: World) -> bool:
    with world.registry.reading() as session:
        return jobs.any_lost(session)
