"""A small installation for one test: database, broker, object store, workers that come and go, and one oracle."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from registry import files, jobs, tenants
from registry.context import Registry
from registry.jobs import JobRequest
from registry.models import Adapter, File, Job, JobAttempt, JobEvent, Method, OutboxMessage
from registry.publisher import Publisher
from registry.settings import Settings
from registry.tenants import Principal
from tests.faults.strikes import Orders
from tests.support.canaries import found_in_logs
from tests.support.redis_server import OwnServer

# Several times what a worker may be kept waiting on a busy machine.
LEASE_SECONDS = 6.0
PATIENCE_SECONDS = 180.0
BASE = "small"


def eventually(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """What `condition()` says once it is true. Processes that are being killed have no signal to wait for."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for: {what}")
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Result:
    """What a job leaves for its tenant; equal results are the same to the last bit."""

    adapter: bytes
    curve: bytes
    family: bytes | None
    """Of a sweep, all members' curves."""
    trained_tokens: int | None


class Nursery:
    """The process that forks workers."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.nursery"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def fork(self, **order: str | dict[str, str]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


@dataclass
class WorkerProcess:
    """A worker that may be struck."""

    pid: int
    folder: Path

    @property
    def struck(self) -> bool:
        return (self.folder / "struck").exists()

    @property
    def exit_code(self) -> int | None:
        """Negative for the signal that ended it; None while it runs."""
        path = self.folder / "status"
        return int(path.read_text()) if path.exists() else None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def is_ready(self) -> bool:
        return " ready\n" in self.log

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait_until_struck(self) -> None:
        eventually(lambda: self.struck, "the strike")

    def wait_until_stopped(self) -> None:
        """By its strike, which may wait for a transaction first: it would stop what the test lets go on too early."""
        eventually(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED, "the worker to stand still")

    def wait_until_ready(self) -> None:
        eventually(lambda: self.is_ready, "a worker that is ready")

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code, once it has ended."""
        eventually(lambda: self.exit_code is not None, "the worker's end", seconds)
        assert self.exit_code is not None
        return self.exit_code


@dataclass
class World:
    """Everything a test touches. Workers see the settings in `env` and nothing of the test's own environment."""

    folder: Path
    settings: Settings
    env: dict[str, str]
    nursery: Nursery
    redis: OwnServer
    registry: Registry
    principal: Principal
    headers: dict[str, str]
    publisher: Publisher
    workers: list[WorkerProcess] = field(default_factory=list)

    def start_worker(self, orders: Orders | None = None, **env: str) -> WorkerProcess:
        """A new worker process; it takes whatever is queued."""
        folder = self.folder / f"worker-{len(self.workers)}"
        folder.mkdir()
        (folder / "log").touch()
        pid = self.nursery.fork(
            env={**self.env, **env},
            orders=(orders or Orders()).to_json(),
            log=str(folder / "log"),
            struck=str(folder / "struck"),
            status=str(folder / "status"),
        )
        worker = WorkerProcess(pid, folder)
        self.workers.append(worker)
        return worker

    def upload(self, rows: int, word: str = "order", method: Method = "supervised") -> str:
        """Rows that teach a word, or to prefer it to another."""

        def line(i: int) -> dict[str, Any]:
            question = {"role": "user", "content": f"help {i} " + "please " * (i % 5)}
            answer, other = ({"role": "assistant", "content": f"{said} {i % 3}"} for said in (word, "refund"))
            if method == "supervised":
                return {"messages": [question, answer]}
            return {"input": {"messages": [question]}, "preferred_output": [answer], "non_preferred_output": [other]}

        lines = map(line, range(rows))
        data = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
        return files.ingest(self.registry, self.principal, data, "rows.jsonl", "fine-tune").id

    def submit(
        self,
        *,
        publish: bool = True,
        from_adapter: str | None = None,
        word: str = "order",
        validate_on: str = "order",
        epochs: int = 4,
        method: Method = "supervised",
        **osora: Any,
    ) -> str:
        """The job that every test submits: 40 steps, a checkpoint every five, an evaluation every ten.

        It learns to say "order", and is validated on that unless told otherwise. What is None is left to the
        installation's settings.
        """
        knobs = {"rank": 8, "checkpoint_steps": 5, **osora}
        request = JobRequest(
            base=BASE,
            training_file=self.upload(40, word, method),
            validation_file=self.upload(8, validate_on, method),
            method=method,
            seed=7,
            hyperparameters={"n_epochs": epochs, "batch_size": 4},
            osora={name: value for name, value in knobs.items() if value is not None},
            from_adapter=from_adapter,
        )
        with self.registry.transaction() as session:
            job_id = jobs.submit(session, self.principal, request, self.settings).id
        if publish:
            self.publisher.relay(self.registry)
        return job_id

    def job(self, job_id: str) -> Job:
        with self.registry.reading() as session:
            return jobs.get(session, self.principal, job_id)

    def attempts(self, job_id: str) -> list[JobAttempt]:
        with self.registry.reading() as session:
            return list(jobs.attempts(session, self.principal, job_id))

    def events(self, job_id: str) -> list[JobEvent]:
        with self.registry.reading() as session:
            return list(jobs.events(session, self.principal, job_id, limit=10_000).data)

    def said(self, job_id: str, words: str) -> bool:
        return any(words in event.message for event in self.events(job_id))

    def ask(self, wish: str, job_id: str) -> None:
        with self.registry.transaction() as session:
            getattr(jobs, wish)(session, self.principal, job_id)

    def wait_for(self, job_id: str, status: str) -> Job:
        job: Job = eventually(
            lambda: (found := self.job(job_id)).status == status and found, f"{job_id} to be {status}"
        )
        return job

    def result(self, job_id: str) -> Result:
        """What a job that succeeded left."""
        job = self.job(job_id)
        with self.registry.reading() as session:
            adapter = session.get_one(Adapter, job.adapter_id)
            keys = [session.get_one(File, file_id).object_key for file_id in job.result_file_ids]
        store = self.registry.store
        curve, *family = map(store.get, keys)
        return Result(store.get(adapter.object_key), curve, *family or [None], job.trained_tokens)

    def assert_undisturbed(self, job_id: str, expected: Result) -> None:
        """The oracle: the job succeeded once, with the result it would have had without any fault."""
        job = self.wait_for(job_id, "succeeded")
        found = self.result(job_id)
        assert found.adapter == expected.adapter, "another adapter"
        assert found.curve == expected.curve, "another loss curve"
        assert found.family == expected.family, "another curve of a sweep's other members"
        assert found.trained_tokens == expected.trained_tokens, "tokens counted twice, or not at all"
        self.assert_settled(job, "succeeded")
        assert self.metrics_follow(job_id, expected.curve)

    def assert_settled(self, job: Job, status: str) -> None:
        """One end, no lease left, no attempt open, no wake-up lying around, events in order."""
        assert (job.status, job.lease_token, job.lease_expires_at) == (status, None, None)
        outcomes = [attempt.outcome for attempt in self.attempts(job.id)]
        assert None not in outcomes
        assert outcomes.count("succeeded") == (status == "succeeded")
        events = self.events(job.id)
        numbers = [event.id for event in events]
        assert numbers == sorted(set(numbers))
        endings = ("The job has successfully completed", "The job failed: ", "Job cancelled")
        assert sum(event.message.startswith(endings) for event in events) == 1
        # One whose publishing timed out may have arrived all the same; it goes out once more a little later.
        eventually(lambda: not self._has_wake_up(job.id), "the outbox to be empty")
        with self.registry.reading() as session:
            adapters = session.scalars(select(Adapter.id).where(Adapter.job_id == job.id)).all()
        assert len(adapters) == (status == "succeeded")

    def _has_wake_up(self, job_id: str) -> bool:
        with self.registry.reading() as session:
            found = session.scalars(select(OutboxMessage.job_id).where(OutboxMessage.job_id == job_id)).all()
        return bool(found)

    def metrics_follow(self, job_id: str, curve: bytes) -> bool:
        """Whether every evaluation in the event stream is the undisturbed run's."""
        rows = csv.DictReader(io.StringIO(curve.decode()))
        losses = {int(row["step"]): float(row["valid_loss"]) for row in rows if row["valid_loss"]}
        told: dict[int, float] = {
            event.data["step"]: event.data["valid_loss"]
            for event in self.events(job_id)
            if event.type == "metrics" and event.data and "valid_loss" in event.data
        }
        return told == losses

    def objects(self) -> dict[str, bytes]:
        """All objects that belong to jobs."""
        store = self.registry.store
        return {
            found.key: store.get(found.key)
            for prefix in ("adapters", "checkpoints", "results")
            for found in store.list(prefix)
        }

    def end_workers(self) -> None:
        """Nothing that was started may be left, nor anything that it started."""
        running = [worker for worker in self.workers if worker.exit_code is None]
        families = [psutil.Process(worker.pid) for worker in running if psutil.pid_exists(worker.pid)]
        children = [child for process in families for child in process.children(recursive=True)]
        for worker in running:
            with suppress(ProcessLookupError):  # it has ended just now
                worker.send(signal.SIGKILL)
            worker.wait()
        _, left = psutil.wait_procs(children, timeout=60)  # a follower ends when it sees that its worker has
        assert left == []


@contextmanager
def open_world(
    folder: Path, database_url: str, nursery: Nursery, redis: OwnServer, base: Path, **env: str
) -> Iterator[World]:
    """A world on a migrated database; its workers are gone at the end."""
    own = {
        "OSORA_DATA_DIR": str(folder / "data"),
        "OSORA_DATABASE_URL": database_url,
        "OSORA_BROKER_URL": redis.url,
        "OSORA_BASES": f"{BASE}={base}",
        "OSORA_BASIS_RANK": "8",
        "OSORA_DEVICE": "cpu",
        "OSORA_LEASE_SECONDS": str(LEASE_SECONDS),
        "OSORA_HEARTBEAT_SECONDS": "0.5",
        "OSORA_SIGNAL_SECONDS": "0.2",
        "OSORA_MAINTENANCE_SECONDS": "0.2",
        "OSORA_RECONCILE_SECONDS": "1",
        **env,
    }
    settings = Settings(**{name.removeprefix("OSORA_").lower(): value for name, value in own.items()})  # type: ignore[arg-type]
    publisher = Publisher(redis.url)
    with Registry.open(settings) as registry:
        with registry.transaction() as session:
            plaintext = tenants.create_key(session, tenants.DEFAULT_TENANT, "test", tenants.ALL_SCOPES)[1]
            principal = tenants.authenticate(session, plaintext)
        headers = {"authorization": f"Bearer {plaintext}"}
        world = World(folder, settings, own, nursery, redis, registry, principal, headers, publisher)
        try:
            yield world
        finally:
            world.end_workers()
            publisher.close()
            assert found_in_logs(folder) == {}
