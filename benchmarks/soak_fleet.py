"""The processes of a soak: a Redis, and workers as production starts them, with a supervisor that replaces them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from osora.serve import broker
from osora.serve.probes import logged
from osora.serve.spawn import kill_group, spawn

DRAIN_SECONDS = 20.0
"""What a worker has from SIGTERM to its end."""
_LOOK_SECONDS = 0.02


@dataclass(eq=False)
class Worker:
    """One `python -m worker`."""

    process: subprocess.Popen[bytes]
    has_come_up: Callable[[], bool]
    ready: bool = False
    drained_at: float | None = None

    @property
    def id(self) -> str:
        """As the worker calls itself in the database."""
        return f"{socket.gethostname()}-{self.process.pid}"


class Fleet:
    """`count` workers: one that has ended, however that came about, is replaced at the next `tend`."""

    def __init__(self, folder: Path, env: Mapping[str, str], count: int) -> None:
        self.count = count
        self.workers: list[Worker] = []
        self.surprises: list[str] = []
        """Ends that nobody asked for, and drains that failed or took too long."""
        self._folder = folder
        self._env = env
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> Worker:
        """One worker more; it takes what is queued once it is ready."""
        path = self._folder / f"worker-{len(self._started)}.log"
        command = (sys.executable, "-P", "-m", "worker")
        with path.open("ab") as log:
            process = spawn(command, env=self._env, stdout=log, stderr=subprocess.STDOUT)
        worker = Worker(process, logged(path, "ready"))
        self._started.append(process)
        self.workers.append(worker)
        return worker

    def tend(self) -> None:
        """Note who is ready and who has ended, and start as many as are missing."""
        for worker in list(self.workers):
            worker.ready = worker.ready or worker.has_come_up()
            self._note_end(worker)
        while len(self.workers) < self.count:
            self.start()

    def kill(self, worker: Worker) -> None:
        """SIGKILL; returns when the process is gone."""
        worker.process.kill()
        worker.process.wait()
        self.workers.remove(worker)

    def drain(self, worker: Worker) -> None:
        """SIGTERM; returns at once."""
        worker.drained_at = time.monotonic()
        worker.process.terminate()

    def stop(self) -> None:
        """Drain every worker and wait for its end."""
        for worker in self.workers:
            if worker.drained_at is None:
                self.drain(worker)
        while self.workers:
            for worker in list(self.workers):
                self._note_end(worker)
            time.sleep(_LOOK_SECONDS)

    def orphans(self) -> list[int]:
        """The sessions of workers that have ended in which something still runs."""
        return [process.pid for process in self._started if process.poll() is not None and _has_members(process.pid)]

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        for process in self._started:
            kill_group(process)
            process.wait()

    def _note_end(self, worker: Worker) -> None:
        """Forget a worker that has ended, and one that does not though it should have."""
        code = worker.process.poll()
        waited = 0.0 if worker.drained_at is None else time.monotonic() - worker.drained_at
        if code is None and waited <= DRAIN_SECONDS:
            return
        # One that had not come up yet had no job to give back.
        as_asked = worker.drained_at is not None and (code == 0 or (code == -signal.SIGTERM and not worker.ready))
        if not as_asked:
            self.surprises.append(
                f"{worker.id} still ran {waited:.0f} s after SIGTERM"
                if code is None
                else f"{worker.id} ended with exit code {code}, {'drained' if worker.drained_at else 'unasked'}"
            )
        self.kill(worker)


class Redis:
    """A Redis on a unix socket that keeps nothing on disk, as `osora serve` starts one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._broker = broker.prepare(folder)
        self._log = folder / "redis.log"
        self.url = self._broker.url
        self.start()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        with self._log.open("ab") as log:
            self.process = spawn(self._broker.command, env=os.environ, stdout=log, stderr=subprocess.STDOUT)
        while not self._broker.answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"Redis ended with exit code {self.process.returncode}; see {self._log}")
            time.sleep(_LOOK_SECONDS)

    def kill(self) -> None:
        """SIGKILL; what it held is gone."""
        kill_group(self.process)
        self.process.wait()


def _has_members(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)  # signal 0 only looks
        return True
    return False
