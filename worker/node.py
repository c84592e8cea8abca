"""One worker process: its engines, the attempts it holds, and the threads that keep their leases."""

import logging
import os
import socket
import threading
from collections.abc import Mapping

from osora_core.runtime import Runtime
from osora_core.training import TrainingEngine
from registry import jobs, outbox
from registry.context import Registry
from registry.jobs import Attempt
from registry.publisher import Publisher
from worker.attempt import run_attempt
from worker.reports import Reports
from worker.threads import EngineThread, Periodic

logger = logging.getLogger(__name__)

# A wake-up that was published and never led to a claim is written again after this long.
_STALE_WAKE_UP_SECONDS = 60


class Node:
    """Runs jobs of the bases in `runtimes`. `train` is called on one thread a job; a base has one engine thread."""

    def __init__(self, registry: Registry, runtimes: Mapping[str, Runtime], publisher: Publisher) -> None:
        settings = registry.settings
        self.registry = registry
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}"
        self._publisher = publisher
        self._held: dict[str, tuple[Attempt, Reports]] = {}
        self._lock = threading.Lock()
        self._draining = threading.Event()
        self._engines = {
            base: EngineThread(
                TrainingEngine(runtime, max_jobs=settings.worker_jobs, checkpoint_seconds=settings.checkpoint_seconds)
            )
            for base, runtime in runtimes.items()
        }
        self._periodic = [
            Periodic("heartbeat", settings.heartbeat_seconds, self._heartbeat),
            Periodic("maintenance", settings.maintenance_seconds, self._maintain),
        ]

    def start(self) -> None:
        """Start the engines, the heartbeat and the maintenance."""
        for thread in (*self._engines.values(), *self._periodic):
            thread.start()

    def drain(self) -> None:
        """Ask every attempt to checkpoint, give its job back and end; claim no more."""
        self._draining.set()
        for _, reports in self._attempts():
            reports.signal("drain")

    def stop(self) -> None:
        """End all threads; attempts that are still held are left to their leases."""
        self.drain()
        for periodic in self._periodic:
            periodic.stop()
        for engine in self._engines.values():
            engine.stop()

    def train(self, job_id: str) -> None:
        """Run a job until it ends, is given back, or is somebody else's. Returns at once if it is not to be had."""
        if self._draining.is_set():
            return
        with self.registry.transaction() as session:
            attempt = jobs.claim(session, job_id, self.worker_id, self.registry.settings.lease_seconds)
        if attempt is None:
            logger.info("job %s is not to be had: taken, ended or paused", job_id)
            return
        logger.info("job %s: attempt %d begins", job_id, attempt.number)
        reports = Reports()
        with self._lock:
            self._held[job_id] = (attempt, reports)
        if self._draining.is_set():
            # The drain may have looked for attempts before this one was among them.
            reports.signal("drain")
        try:
            run_attempt(self.registry, self._engines[attempt.base], attempt, reports)
        finally:
            with self._lock:
                del self._held[job_id]
            logger.info("job %s: attempt %d is over", job_id, attempt.number)

    def _attempts(self) -> list[tuple[Attempt, Reports]]:
        with self._lock:
            return list(self._held.values())

    def _heartbeat(self) -> None:
        held = self._attempts()
        if not held:
            return
        with self.registry.transaction() as session:
            answers = jobs.heartbeat(session, [attempt for attempt, _ in held], self.registry.settings.lease_seconds)
        for attempt, reports in held:
            answer = answers[attempt.job_id]
            if answer != "continue":
                reports.signal(answer)

    def _maintain(self) -> None:
        """Idempotent, and fine to run in every worker at once."""
        with self.registry.transaction() as session:
            jobs.reap(session)
            jobs.reconcile(session, _STALE_WAKE_UP_SECONDS)
        with self.registry.transaction() as session:
            outbox.relay(session, self._publisher)
