"""A worker that is killed in the middle of a probe: who asked hears of it, and nothing of it stays."""

import signal

import pytest
from sqlalchemy import select, update

from registry.jobs import JobRequest, probes
from registry.jobs.probes import ProbeState
from registry.models import Job, JobAttempt, JobEvent, OutboxMessage
from tests.faults.strikes import MID_STEP, Orders, Strike
from tests.faults.world import BASE, Result, World, eventually


def start(world: World, steps: int) -> str:
    request = JobRequest(base=BASE, training_file=world.upload(24), seed=1, osora={"rank": 8, "learning_rate": 0.03})
    with world.registry.transaction() as session:
        probe_id = probes.start(session, world.principal, request, world.settings, {}, steps)
    world.publisher.relay(world.registry)
    return probe_id


def look(world: World, probe_id: str) -> ProbeState:
    with world.registry.reading() as session:
        state = probes.look(session, probe_id)
    assert state is not None
    return state


def is_gone(world: World, probe_id: str) -> bool:
    with world.registry.reading() as session:
        tables = (Job.id, JobEvent.job_id, JobAttempt.job_id, OutboxMessage.job_id)
        return not any(session.scalars(select(column).where(column == probe_id)).all() for column in tables)


def make_overdue(world: World, probe_id: str) -> None:
    with world.registry.transaction() as session:
        session.execute(update(Job).where(Job.id == probe_id).values(probe_until=1.0))


def test_a_killed_workers_probe_fails_and_goes(world: World, undisturbed: Result) -> None:
    probe_id = start(world, 20)
    victim = world.start_worker(Orders(Strike(MID_STEP, "kill", 3)))
    assert victim.wait() == -9
    world.start_worker()
    eventually(lambda: look(world, probe_id).is_over, "the probe's end")
    state = look(world, probe_id)
    assert state.status == "failed"
    assert state.error is not None
    assert state.error["code"] == "worker_lost"
    make_overdue(world, probe_id)
    eventually(lambda: is_gone(world, probe_id), "the probe's rows to go")
    job_id = world.submit()  # for which all is as ever
    world.assert_undisturbed(job_id, undisturbed)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_probe_that_nobody_waits_for_leaves_its_worker(world: World) -> None:
    """As when the API has died: its time is over, and the worker that trains it loses it."""
    probe_id = start(world, 50)
    worker = world.start_worker(Orders(Strike(MID_STEP, "stop", 3)))
    worker.wait_until_stopped()
    make_overdue(world, probe_id)
    heir = world.start_worker()
    eventually(lambda: is_gone(world, probe_id), "the probe's rows to go")
    heir.wait_until_ready()
    worker.send(signal.SIGCONT)
    eventually(lambda: f"{probe_id}: attempt 1 lets go" in worker.log, "the worker to let go")
