"""One real installation for all acceptance tests: `osora serve`, as a user starts it."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from osora import Osora, OsoraAPIError
from osora.schemas import JobStatus
from tests.support.canaries import found_in_logs
from tests.support.ports import free_port

BASE = "osora-tiny"


@dataclass(frozen=True)
class Service:
    """A running `osora serve`."""

    url: str
    key: str
    data_dir: Path
    pid: int
    sdk: Osora


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service")) as service:
        yield service


@contextmanager
def serving(data_dir: Path) -> Iterator[Service]:
    """Short leases, so that a killed worker is missed within seconds, but longer than a busy machine lets a living one
    wait. Afterwards no process may be left."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OSORA_")}
    env = {
        **own,
        "OSORA_DATA_DIR": str(data_dir),
        "OSORA_LEASE_SECONDS": "20",
        "OSORA_HEARTBEAT_SECONDS": "1",
        "OSORA_CHECKPOINT_SECONDS": "0.5",
        "OSORA_LOG_LEVEL": "DEBUG",  # whatever is logged is searched at the end
        "OSORA_WEBHOOKS_ALLOW_PRIVATE": "true",  # receivers are on this machine
    }
    command = [sys.executable, "-P", "-m", "osora", "serve", "--json", "--port", str(free_port())]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as server:
        family: list[psutil.Process] = []
        try:
            url = wait_until_ready(server)
            key = (data_dir / "local.key").read_text().strip()
            with Osora(url, key) as sdk:
                yield Service(url, key, data_dir, server.pid, sdk)
        finally:
            family = psutil.Process(server.pid).children(recursive=True)
            server.terminate()
            server.communicate(timeout=120)
        assert server.returncode == 0
        # What they started in turn is killed with them, but the kernel may not be through with it.
        assert psutil.wait_procs(family, timeout=60)[1] == []
        assert found_in_logs(data_dir / "logs") == {}


def wait_until_ready(server: subprocess.Popen[bytes]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        notice = json.loads(line)
        if notice["event"] == "ready":
            return str(notice["url"])
    raise AssertionError("the service did not start")


@pytest.fixture(autouse=True)
def _no_job_goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test leaves to be trained would end in the middle of another: first in its lists, told to its webhooks."""
    if "service" not in request.fixturenames:
        yield
        return
    sdk = request.getfixturevalue("service").sdk
    yield
    unfinished: tuple[JobStatus, ...] = ("queued", "running", "paused")
    for job in [job for status in unfinished for job in sdk.jobs.list(status=status)]:
        with suppress(OsoraAPIError):  # it has ended by now
            sdk.jobs.cancel(job["id"])
        sdk.jobs.wait(job["id"])


def child(service: Service, program: str) -> psutil.Process:
    """The process of one of our programs."""
    children = {tuple(one.cmdline()[-2:]): one for one in psutil.Process(service.pid).children()}
    return children["-m", program]


@contextmanager
def queue_at_rest(service: Service) -> Iterator[None]:
    """Jobs that are made meanwhile stay in the queue: the worker stands still, and not in the middle of a write, for
    which all others would wait."""
    worker = child(service, "worker")
    try:
        _stop(worker)
        while _is_being_written(service.data_dir / "osora.db"):
            worker.resume()
            _stop(worker)
        yield
    finally:
        worker.resume()


def _stop(process: psutil.Process) -> None:
    process.suspend()
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)


def _is_being_written(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def dataset(path: Path, answer: str, rows: int = 24) -> Path:
    """A file that teaches one answer whatever is asked."""
    asked = ["Which city?", "Name a city.", "Where to?", "Tell me the place."]
    with path.open("w") as file:
        for index in range(rows):
            messages = [
                {"role": "user", "content": asked[index % len(asked)]},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


@pytest.fixture(scope="session")
def trained(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a model that always says Oslo, made with nothing but OpenAI's client."""
    path = dataset(tmp_path_factory.mktemp("data") / "oslo.jsonl", "Oslo")
    with OpenAI(base_url=f"{service.url}/v1", api_key=service.key, timeout=60) as client:
        file = client.files.create(file=path, purpose="fine-tune")
        client.files.wait_for_processing(file.id)
        hyperparameters: Any = {"n_epochs": 8, "batch_size": 8}
        job = client.fine_tuning.jobs.create(
            model=BASE,
            training_file=file.id,
            suffix="cities",
            seed=1,
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        )
        for _ in service.sdk.jobs.events(job.id):  # until it ends; the client itself could only ask again and again
            pass
        job = client.fine_tuning.jobs.retrieve(job.id)
        assert job.status == "succeeded", job
        assert job.fine_tuned_model is not None
        events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
        assert {event.type for event in events} == {"message", "metrics"}
        newest, *_ = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
        assert newest.metrics.train_loss is not None
        assert client.models.retrieve(newest.fine_tuned_model_checkpoint).object == "model"
        assert b"train_loss" in client.files.content(job.result_files[0]).read()
        return job.fine_tuned_model
