"""One worker process: its engines, the attempts it holds, and the threads that keep their leases."""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

from osora_core.runtime import Runtime
from osora_core.training import TrainingEngine
from osora_core.training.passes import MakePasses, Passes
from registry import erasure, jobs, outbox, retention, workers
from registry.context import Registry
from registry.jobs import Attempt, probes
from registry.outages import first_line
from registry.publisher import Publisher
from worker.attempt import run_attempt
from worker.capacity import Capacity
from worker.gate import Gate
from worker.held import HeldAttempts
from worker.places import Places
from worker.points import reached
from worker.probe import run_probe
from worker.reports import Reports
from worker.threads import EngineThread, Periodic

logger = logging.getLogger(__name__)

_RETENTION_SECONDS = 3600
_ERASURE_SECONDS = 2
_ENGINE_STOP_SECONDS = 3.0


class Node:
    """Runs jobs of the bases in `runtimes`. `train` is called on one thread a wake-up; a base has one engine thread.

    `on_failure` is called when an engine fails as a whole; the process should then drain and begin anew. `passes` is
    how the engines run the model.
    """

    def __init__(
        self,
        registry: Registry,
        runtimes: Mapping[str, Runtime],
        publisher: Publisher,
        on_failure: Callable[[], None],
        passes: MakePasses = Passes,
    ) -> None:
        settings = registry.settings
        self.registry = registry
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}"
        self.failed = False
        self._on_failure = on_failure
        self._publisher = publisher
        self._held = HeldAttempts()
        self._draining = threading.Event()
        self.capacity = Capacity.of(settings, runtimes, passes)
        self.places = Places(self.capacity.jobs, self._heed)
        self._gate = Gate(self._draining)
        self._unheeded: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._renewed_at = 0.0
        self._announced = False
        self._passes = passes
        self._at_first = self.capacity
        self._beside: dict[str, Capacity] = {}
        # Replaced as a whole when a base comes or goes: others read it meanwhile.
        self._engines = {
            base: EngineThread(TrainingEngine(runtime, max_jobs=self.capacity.slots, passes=passes), self.fail)
            for base, runtime in runtimes.items()
        }
        self._identities = {base: _identity(runtime) for base, runtime in runtimes.items()}
        self._periodic = [
            Periodic("heartbeat", min(settings.signal_seconds, settings.heartbeat_seconds), self._watch),
            Periodic("maintenance", settings.maintenance_seconds, self._maintain),
            Periodic("reconciling", settings.reconcile_seconds, self._reconcile),
            Periodic("erasure", _ERASURE_SECONDS, self._erase),
            Periodic("retention", _RETENTION_SECONDS, lambda: retention.maintain(registry)),
        ]

    @property
    def bases(self) -> Collection[str]:
        """Those whose jobs it runs."""
        return self._engines.keys()

    def add_base(self, runtime: Runtime) -> None:
        """Run the jobs of a base more from now on. Raises MemoryTooSmall where there is no room for any."""
        base = runtime.name
        capacity = self.capacity.beside(self.registry.settings, runtime, self._passes, len(self._engines) + 1)
        engine = EngineThread(TrainingEngine(runtime, max_jobs=capacity.slots, passes=self._passes), self.fail)
        engine.start()
        self._identities = {**self._identities, base: _identity(runtime)}
        self._engines = {**self._engines, base: engine}
        self._beside[base] = capacity
        self._set_capacity()

    def heed_base(self, base: str) -> None:
        """Have jobs of a base taken up that were queued while nobody here listened."""
        with self.registry.transaction() as session:
            jobs.reconcile(session, base, 0.0)

    def remove_base(self, base: str) -> bool:
        """Run no job of a base any more, and let go of it; False while a job of it is still held."""
        if any(attempt.base == base for attempt, _ in self._held.all()):
            return False
        engine = self._engines[base]
        self._engines = {name: each for name, each in self._engines.items() if name != base}
        self._identities = {name: each for name, each in self._identities.items() if name != base}
        engine.stop(_ENGINE_STOP_SECONDS)
        self._beside.pop(base, None)
        self._set_capacity()
        return True

    def _set_capacity(self) -> None:
        """As the base that leaves room for the fewest jobs has it, and told at the next heartbeat, which is now."""
        self.capacity = min((self._at_first, *self._beside.values()), key=lambda capacity: capacity.jobs)
        self.places.resize(self.capacity.jobs)
        self._renewed_at = 0.0

    def start(self) -> None:
        """Start the engines, the heartbeat and the maintenance."""
        for thread in (*self._engines.values(), *self._periodic):
            thread.start()

    def drain(self) -> None:
        """Claim no more; the heartbeat's thread has every attempt checkpoint and give its job back.

        Only sets a flag, because it is called from a signal's handler.
        """
        self._draining.set()

    def stop(self) -> bool:
        """End all threads, and say whether they have ended; attempts that are still held are left to their leases."""
        self.drain()
        for periodic in self._periodic:
            periodic.stop()
        for engine in self._engines.values():
            engine.stop(_ENGINE_STOP_SECONDS)
        ended = not any(thread.is_alive() for thread in (*self._engines.values(), *self._periodic))
        try:
            with self.registry.transaction() as session:
                workers.gone(session, self.worker_id)
        except Exception as error:
            logger.warning("the database did not hear that this worker has stopped: %s", error)
        return ended

    def train(self, base: str) -> None:
        """Act on a wake-up: run the base's job whose turn it is, if there is one, until it ends or is given back."""
        while base in self._engines:
            passed_over = self.places.passed_over()
            alone = self._wants_to_be_alone(base, passed_over)
            if alone is None:
                break
            if self._draining.is_set() or not self._gate.is_open(alone):
                self._pass_on(base)
            # Another worker may have taken what this one waits for.
            with self._gate.passing(alone=alone, wanted=partial(self._still_wants, base, alone)) as entered:
                if self._draining.is_set() or (entered and self._train(base, alone)):
                    return
            if not self.places.room:
                return self._pass_on(base)
        else:
            return  # it has been removed, with all its jobs
        if passed_over:
            with self._counting:
                self._unheeded[base] += 1
            # Who has left a place since it was looked at found nothing to heed.
            if self.places.passed_over() != passed_over:
                self._heed()

    def _wants_to_be_alone(self, base: str, passed_over: Collection[str]) -> bool | None:
        with self.registry.reading() as session:
            return jobs.wants_to_be_alone(session, base, passed_over)

    def _still_wants(self, base: str, alone: bool) -> bool:
        return self._wants_to_be_alone(base, self.places.passed_over()) == alone

    def _pass_on(self, base: str) -> None:
        """Let a worker act on the wake-up that can do so now; one too many is harmless."""
        try:
            self._publisher(outbox.train_queue(base), outbox.TRAIN_TASK, [base])
        except Exception as error:
            logger.warning("a wake-up was not passed on; the reconciler writes it again: %s", first_line(error))

    def _train(self, base: str, alone: bool) -> bool:
        """Whether there was a job to run."""

        def claim(passed_over: Collection[str]) -> Attempt | None:
            lease_seconds = self.registry.settings.lease_seconds
            with self.registry.transaction() as session:
                return jobs.claim_next(session, base, self.worker_id, lease_seconds, passed_over, alone=alone)

        with self.places.claimed(claim) as claimed:
            if claimed is None:
                return False
            attempt, place = claimed
            job_id = attempt.job_id
            logger.info("job %s: attempt %d begins", job_id, attempt.number)
            reports = Reports()
            with self._held.hold(attempt, reports):
                reached("claimed", job_id)
                run = run_attempt if attempt.probe_steps is None else run_probe
                run(self.registry, self._engines[attempt.base], attempt, reports, place)
            logger.info("job %s: attempt %d is over", job_id, attempt.number)
        return True

    def _heed(self) -> None:
        """Have wake-ups acted on that came while all jobs to claim were of tenants with no place for another."""
        room = self.places.room
        for base in self._engines:
            with self._counting:
                count = min(room, self._unheeded[base])
                self._unheeded[base] -= count
            for _ in range(count):
                self._pass_on(base)

    def _watch(self) -> None:
        """Renew the leases when that is due, and pass on what is wanted of each attempt."""
        held = self._held.all()
        if self._draining.is_set():
            for _, reports in held:
                reports.signal("drain")
        attempts = [attempt for attempt, _ in held]
        settings = self.registry.settings
        started = time.monotonic()
        if started - self._renewed_at >= settings.heartbeat_seconds:
            with self.registry.transaction() as session:
                workers.seen(session, self.worker_id, list(self._engines), self.capacity.jobs, self._identities)
                answers = jobs.heartbeat(session, attempts, settings.lease_seconds)
            self._renewed_at = started
        else:
            with self.registry.reading() as session:
                answers = jobs.signals(session, attempts)
        for attempt, reports in held:
            reports.signal(answers[attempt.token])

    def _maintain(self) -> None:
        """Idempotent, and fine to run in every worker at once."""
        with self.registry.reading() as session:
            lost, overdue = jobs.any_lost(session), probes.any_overdue(session)
        if lost:
            with self.registry.transaction() as session:
                jobs.reap(session)
        if overdue:
            with self.registry.transaction() as session:
                probes.clear(session)
        outbox.relay(self.registry, self._publisher)

    def _erase(self) -> None:
        with self.registry.reading() as session:
            is_begun = erasure.any_begun(session)
        if is_begun:
            erasure.go_on(self.registry)

    def _reconcile(self) -> None:
        """Wake-ups get lost with a broker's memory. At its start a worker takes all of them for lost."""
        older_than = self.registry.settings.reconcile_seconds if self._announced else 0.0
        for base in self._engines:
            if self._publisher.waiting(outbox.train_queue(base)) == 0:
                with self.registry.transaction() as session:
                    jobs.reconcile(session, base, older_than)
        self._announced = True

    def fail(self) -> None:
        """This process is not to be trusted any more: drain, and have it end."""
        self.failed = True
        self.drain()
        self._on_failure()


def _identity(runtime: Runtime) -> tuple[str, ...]:
    """The fingerprints of a base, of its basis, and of the smaller ones that it has grown from."""
    return (runtime.basis.base_fingerprint, *(one.fingerprint for one in reversed(runtime.basis.known)))
