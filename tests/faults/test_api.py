"""The API dies, or its broker does, right after it has accepted a job."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.faults.world import BASE, Result, World
from tests.support.ports import free_port

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

# What the API does between the commit of a job and the publishing of its message, if it gets that far.
KILLED_BEFORE_RELAY = """
import os, signal
from api.__main__ import main
from registry.publisher import Publisher
Publisher.relay = lambda self, registry: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


@contextmanager
def api(world: World, *program: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """An API process on the world's stores, and a client of it."""
    port = free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith("OSORA_")}
    env = {**own, **world.env, "OSORA_PORT": str(port)}
    process = subprocess.Popen([sys.executable, *program], env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process, httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=world.headers, timeout=60) as client:
        try:
            assert "ready\n" in process.stderr
            yield process, client
        finally:
            process.terminate()
            process.communicate(timeout=60)


def post_job(world: World, client: httpx.Client) -> str:
    body = {
        "model": BASE,
        "training_file": world.upload(40),
        "validation_file": world.upload(8),
        "seed": 7,
        "hyperparameters": {"n_epochs": 4, "batch_size": 4},
        "osora": {"rank": 8, "checkpoint_steps": 5},
    }
    response = client.post("/jobs", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def test_killed_between_commit_and_publishing(world: World, undisturbed: Result) -> None:
    with api(world, "-c", KILLED_BEFORE_RELAY) as (process, client):
        job_id = post_job(world, client)
        assert process.wait(60) == -9
    assert world.publisher.waiting(f"train.{BASE}") == 0
    world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)


def test_a_job_is_accepted_while_the_broker_is_down_and_starts_when_it_is_back(
    world: World, undisturbed: Result
) -> None:
    worker = world.start_worker()
    worker.wait_until_ready()
    world.redis.kill()
    with api(world, "-m", "api") as (_, client):
        job_id = post_job(world, client)
        assert client.get(f"/jobs/{job_id}").json()["status"] == "queued"
    world.redis.start()
    world.assert_undisturbed(job_id, undisturbed)
    assert worker.exit_code is None
