"""What a job depends on goes away for a while: the job waits or resumes, and nothing half-written is seen."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import migrate
from registry.outbox import train_queue
from tests.faults.strikes import Orders, Strike
from tests.faults.world import BASE, Nursery, Result, World, eventually, open_world
from tests.support import postgres
from tests.support.redis_server import OwnServer

REFUSED = "not allowed when used memory"
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@only_sqlite
class TestRedis:
    def test_killed_while_a_job_runs_and_another_waits(self, world: World, undisturbed: Result) -> None:
        running = world.submit()
        worker = world.start_worker(Orders(slow_step=0.2), OSORA_WORKER_JOBS="1")
        world.wait_for(running, "running")
        waiting = world.submit()
        world.redis.kill()  # and with it the second job's message
        accepted = world.submit()  # its message stays in the outbox
        assert world.job(accepted).status == "queued"
        world.redis.start()
        for job_id in (running, waiting, accepted):
            world.assert_undisturbed(job_id, undisturbed)
        assert worker.exit_code is None

    def test_emptied_before_a_worker_comes(self, world: World, undisturbed: Result) -> None:
        job_id = world.submit()
        world.redis.kill()
        world.redis.start()
        assert world.publisher.waiting(train_queue(BASE)) == 0
        world.start_worker()
        world.assert_undisturbed(job_id, undisturbed)

    def test_hung_for_longer_than_its_clients_wait(self, world: World, undisturbed: Result) -> None:
        running = world.submit()
        worker = world.start_worker(Orders(slow_step=0.2))
        world.wait_for(running, "running")
        world.redis.hang()
        accepted = world.submit()
        world.assert_undisturbed(running, undisturbed)  # it needs no broker to end
        eventually(lambda: "timeout" in worker.log.lower() or "timed out" in worker.log.lower(), "the worker to notice")
        world.redis.go_on()
        world.assert_undisturbed(accepted, undisturbed)
        assert worker.exit_code is None

    def test_full(self, world: World, undisturbed: Result) -> None:
        worker = world.start_worker()
        worker.wait_until_ready()
        world.redis.limit_memory(1)
        accepted = world.submit()
        eventually(lambda: REFUSED in worker.log, "the worker to be refused")
        assert world.job(accepted).status == "queued"
        world.redis.limit_memory(0)
        world.assert_undisturbed(accepted, undisturbed)
        assert worker.exit_code is None

    def test_full_when_a_message_is_taken_from_it(self, world: World, undisturbed: Result) -> None:
        """Redis then refuses to note that the message is being worked on."""
        job_id = world.submit()
        world.redis.limit_memory(1)
        worker = world.start_worker()
        eventually(lambda: REFUSED in worker.log, "the worker to be refused")
        world.redis.limit_memory(0)
        world.assert_undisturbed(job_id, undisturbed)
        assert worker.exit_code is None


@pytest.mark.parametrize("store", ["file", "db:"])
def test_postgresql_restarts_under_a_running_job(
    tmp_path: Path, nursery: Nursery, own_redis: OwnServer, base: Path, undisturbed: Result, store: str
) -> None:
    """With `db:` the object store goes with it."""
    env = {"OSORA_OBJECT_STORE": store} if store == "db:" else {}
    with postgres.restartable() as (server, restart), postgres.database(server) as url:
        address = url.render_as_string(hide_password=False)
        migrate.upgrade(address)
        with open_world(tmp_path, address, nursery, own_redis, base, **env) as world:
            job_id = world.submit()
            worker = world.start_worker(Orders(slow_step=0.4))
            for _ in range(2):
                step = world.wait_for(job_id, "running").step
                eventually(lambda step=step: world.job(job_id).step > step, "progress")
                restart()
            world.assert_undisturbed(job_id, undisturbed)
            assert worker.exit_code is None
            assert [attempt.outcome for attempt in world.attempts(job_id)] == ["succeeded"]


@only_sqlite
@pytest.mark.parametrize("point", ["checkpoint_uploading", "adapter_uploading"])
def test_a_full_disk_is_waited_out(world: World, undisturbed: Result, point: str) -> None:
    job_id = world.submit()
    worker = world.start_worker(Orders(Strike(point, "disk_full", nth=1, times=2)))
    world.assert_undisturbed(job_id, undisturbed)
    assert worker.struck
    word = "could not be stored" if point == "checkpoint_uploading" else "Waiting for the object store"
    assert sum(word in event.message for event in world.events(job_id)) == 1
    assert [attempt.outcome for attempt in world.attempts(job_id)] == ["succeeded"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@only_sqlite
def test_a_disk_that_is_really_full(
    tmp_path: Path,
    small_disk: Path,
    database_url: str,
    nursery: Nursery,
    own_redis: OwnServer,
    base: Path,
    undisturbed: Result,
) -> None:
    env = {"OSORA_OBJECT_STORE": f"file://{small_disk}", "OSORA_MIN_FREE_BYTES": "0"}  # smaller than what is kept free
    with open_world(tmp_path, database_url, nursery, own_redis, base, **env) as world:
        worker = world.start_worker()
        worker.wait_until_ready()
        job_id = world.submit(publish=False)
        filler = small_disk / "filler"
        try:
            with filler.open("wb") as file:
                while True:
                    file.write(b"\0" * 4096)
                    file.flush()
        except OSError:
            pass
        world.publisher.relay(world.registry)
        eventually(lambda: world.said(job_id, "Waiting for the object store"), "the job to wait for the disk")
        halves = [found for found in world.objects().values() if not found]
        assert halves == []
        filler.unlink()
        world.assert_undisturbed(job_id, undisturbed)
        assert [attempt.outcome for attempt in world.attempts(job_id)] == ["succeeded"]
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
