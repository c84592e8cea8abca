"""Whether jobs get lost: many small ones on a few workers, of which one is killed every few seconds.

    python -m benchmarks.soak
    python -m benchmarks.soak --jobs 500 --json soak.json
    python -m benchmarks.soak --database-url postgresql+psycopg://localhost/soak

The workers are processes of `python -m worker` as production starts it, their Redis is real and their own, and the
database is SQLite unless another, empty one is named. The base is a small random one, made at the start, unless
`--base` names another. One job of each kind is trained first, alone: the undisturbed results.

Then the jobs come, so that one worker's worth of slots is usually free, and every few seconds (half to one and a half
times `--kill-seconds`) a random worker that has a job is struck: three times of five by SIGKILL, else by SIGTERM, a
drain. A new one takes its place at once. When half the jobs have ended, a quarter of them is submitted in one go, and
Redis is killed with their wake-ups and started again. OSORA_MAX_ATTEMPTS is far above its default, because a job that
meets several of these kills is not what kills its workers, and should not be taken for that.

What is counted: jobs lost (not succeeded), duplicated (more than one adapter, end, or attempt that succeeded) and wrong
(another adapter, loss curve or count of tokens than undisturbed). With `--worker-jobs 1`, the default, no job ever
shares an engine's step, and results are compared bit for bit. With more, any two jobs may share steps, so all results
are compared within floating-point noise: losses by 1e-4, vectors by 1e-3, the tolerances of the engine's own test.

Wasted are the steps that a later attempt ran again; a killed worker's last half second, which no row tells of, is
charged for as `Ledger.charged_steps` says. The time to resumption runs on this process's clock from just before the
signal to the moment when a new attempt is first seen in the database, which is looked at every 50 ms, so it is never
too short. "At once", for a drain, is asked for where another worker had a free slot when the signal came; the times of
the others are in the rows.
"""

import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from benchmarks.report import Report, parser
from benchmarks.soak_fleet import Worker
from benchmarks.soak_installation import LEASE_SECONDS, Installation, LiveJob, Options, installation
from benchmarks.soak_jobs import BASE, KINDS, Kind, Result, result, upload
from benchmarks.soak_ledger import Ledger, audit
from registry.outbox import train_queue

COLUMNS = {
    "at": "7.1f",
    "event": "6",
    "worker": "16",
    "job": "34",
    "attempt": "7d",
    "slot": "5",
    "seconds": "8.2f",
}
_DRAINED_SHARE = 0.4
_LOOK_SECONDS = 0.05
_STALLED_SECONDS = 120.0
WASTE_TARGET, KILL_TARGET, DRAIN_TARGET = 0.10, LEASE_SECONDS + 5, 2.0


@dataclass(frozen=True)
class Interruption:
    """A job that a worker held when it was struck."""

    event: str
    at: float
    worker_id: str
    job_id: str
    attempt: int
    free_slot: bool
    """Whether another worker could have taken it at once."""


class Soak:
    """One run: jobs in, workers struck, until all jobs have ended or nothing moves any more."""

    def __init__(self, options: Options, place: Installation, report: Report) -> None:
        self.options = options
        self.place = place
        self.report = report
        self.submitted: dict[str, Kind] = {}
        self.resumed: list[tuple[Interruption, float]] = []
        self.strikes = 0
        self.stalled = False
        self.began_at = time.monotonic()
        self._random = random.Random(0)
        self._requests = upload(place.registry, place.principal)
        self._kinds = cycle(KINDS)
        self._interrupted: list[Interruption] = []
        self._strike_at = self.began_at
        self._broker_restarted = False
        self._drains_next = False

    def train_undisturbed(self) -> dict[Kind, Result]:
        """The result of a job of each kind, one at a time in one worker that nobody touches."""
        results = {}
        self.place.fleet.start()
        for kind in KINDS:
            job_id = self.place.submit(self._requests[kind])
            ended = False
            while not ended:
                time.sleep(_LOOK_SECONDS)
                _, ended = self.place.attempt(job_id)
            results[kind] = result(self.place.registry, self.place.principal, job_id)
        self.report.add(at=self.now(), event="alone", job=f"{len(results)} jobs, undisturbed")
        return results

    def run(self) -> None:
        """Submit, strike and watch."""
        self._strike_at = time.monotonic() + self.options.kill_seconds / 4
        moved_at, ended_before = time.monotonic(), 0
        while True:
            self.place.fleet.tend()
            live = self.place.live_jobs()
            self._note_resumptions(live)
            ended = len(self.submitted) - len(live)
            if ended > ended_before:
                moved_at, ended_before = time.monotonic(), ended
            self.stalled = time.monotonic() - moved_at > _STALLED_SECONDS
            if ended == self.options.jobs or self.stalled:
                break
            if self._broker_restarted or ended < self.options.jobs / 2:
                self._submit(max(1, (self.options.workers - 1) * self.options.worker_jobs) - len(live))
            else:
                self._submit(self.options.jobs // 4)
                self._restart_broker()
            if time.monotonic() >= self._strike_at:
                self._strike()
            time.sleep(_LOOK_SECONDS)
        self.place.fleet.stop()

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began_at

    def _submit(self, count: int) -> None:
        for _ in range(min(count, self.options.jobs - len(self.submitted))):
            kind = next(self._kinds)
            self.submitted[self.place.submit(self._requests[kind])] = kind

    def _restart_broker(self) -> None:
        lost = self.place.publisher.waiting(train_queue(BASE))
        self.place.redis.kill()
        self.place.redis.start()
        self._broker_restarted = True
        self.report.add(at=self.now(), event="broker", job=f"{lost} wake-ups lost", wake_ups=lost)

    def _strike(self) -> None:
        """End a worker that has a job, one way or the other.

        A drain waits a little for a moment when another worker could take over: that is what it is timed for.
        """
        able = [worker for worker in self.place.fleet.workers if worker.ready and worker.drained_at is None]
        busy = [worker for worker in able if self._held_by(worker)]
        at = time.monotonic()
        if not busy:  # to strike whoever begins next would let nobody get anywhere
            self._strike_at = at + self._interval()
            return
        worker = self._random.choice(busy)
        free_slot = self._free_slots([other for other in able if other is not worker]) > 0
        if self._drains_next and not free_slot and at < self._strike_at + self.options.kill_seconds:
            return
        if self._drains_next:  # it may give its jobs back before the next look
            held = self._held_by(worker)
            self.place.fleet.drain(worker)
        else:  # it may claim and end jobs until it is gone
            self.place.fleet.kill(worker)
            held = self._held_by(worker)
        event = "drain" if self._drains_next else "kill"
        self._interrupted += [
            Interruption(event, at, worker.id, job.id, job.attempt, free_slot=free_slot) for job in held
        ]
        if not held:
            self.report.add(at=at - self.began_at, event=event, worker=worker.id, job="(it held none)")
        self.strikes += 1
        self._strike_at = at + self._interval()
        self._drains_next = self._random.random() < _DRAINED_SHARE

    def _interval(self) -> float:
        return self.options.kill_seconds * self._random.uniform(0.5, 1.5)

    def _held_by(self, worker: Worker) -> list[LiveJob]:
        return [job for job in self.place.live_jobs() if job.worker_id == worker.id]

    def _free_slots(self, workers: Sequence[Worker]) -> int:
        """Slots of these workers that are free, less the jobs that wait for one."""
        ids = {worker.id for worker in workers}
        live = self.place.live_jobs()
        taken = sum(job.worker_id in ids for job in live)
        waiting = sum(job.status == "queued" for job in live)
        return len(workers) * self.options.worker_jobs - taken - waiting

    def _note_resumptions(self, live: Sequence[LiveJob]) -> None:
        seen_at = time.monotonic()
        attempts = {job.id: job.attempt for job in live}
        for interruption in list(self._interrupted):
            attempt, ended = attempts.get(interruption.job_id), False
            if attempt is None:  # resumed and ended since the last look, or ended by the worker that drained
                attempt, ended = self.place.attempt(interruption.job_id)
            if attempt > interruption.attempt:
                seconds = seen_at - interruption.at
                self.resumed.append((interruption, seconds))
                self._report(interruption, seconds=seconds)
            elif ended:
                self._report(interruption, outcome="ended by itself")
            else:
                continue
            self._interrupted.remove(interruption)

    def _report(self, interruption: Interruption, **more: Any) -> None:
        self.report.add(
            at=interruption.at - self.began_at,
            event=interruption.event,
            worker=interruption.worker_id,
            job=interruption.job_id,
            attempt=interruption.attempt,
            slot="free" if interruption.free_slot else "taken",
            **more,
        )


def run(options: Options, report: Report) -> bool:
    """Soak an installation and report rows and targets. False if jobs came to harm; then its folder is kept."""
    with installation(options) as place:
        soak = Soak(options, place, report)
        undisturbed = soak.train_undisturbed()
        soak.run()
        same = Result.__eq__ if options.worker_jobs == 1 else Result.is_close
        ledger = audit(place.registry, place.principal, soak.submitted, undisturbed, same)
        unharmed = conclude(report, soak, ledger)
    if unharmed:
        shutil.rmtree(place.folder)
    else:
        print(f"the workers' logs and all they wrote are in {place.folder}", file=sys.stderr)
    return unharmed


def conclude(report: Report, soak: Soak, ledger: Ledger) -> bool:
    """The last row and the targets; whether every job ended once, as it should, and nothing is left behind."""
    fleet = soak.place.fleet
    harmed: dict[str, list[str]] = {
        "jobs lost": ledger.lost,
        "jobs duplicated": ledger.duplicated,
        "jobs wrong": ledger.wrong,
        "jobs with events out of order": ledger.disordered,
        "leases left": ledger.leases,
        "orphan processes": [f"session {pid}" for pid in fleet.orphans()],
        "workers that ended unasked or late": fleet.surprises,
    }
    report.add(
        at=soak.now(),
        event="end",
        job=f"{len(soak.submitted)} jobs, {ledger.attempts} attempts",
        strikes=soak.strikes,
        stalled=soak.stalled,
        attempts=ledger.attempts,
        useful_steps=ledger.useful_steps,
        repeated_steps=ledger.repeated_steps,
        charged_steps=ledger.charged_steps,
        harmed=harmed,
        load=os.getloadavg(),
    )
    for name, found in harmed.items():
        report.target(name, len(found), "", "0", not found)
        for one in found:
            print(f"  {one}", flush=True)
    share = ledger.wasted_share
    report.target("wasted steps", share, "of all", f"<= {WASTE_TARGET:g}", share <= WASTE_TARGET)
    for event, slot, limit in (("kill", "any", KILL_TARGET), ("drain", "free", DRAIN_TARGET)):
        taken = [s for i, s in soak.resumed if i.event == event and (slot == "any" or i.free_slot)]
        median = statistics.median(taken) if taken else None
        name = f"median from {event} to resumption, {slot} slot ({len(taken)} jobs)"
        report.target(name, median, "s", f"<= {limit:g}", median is not None and median <= limit)
    return not any(harmed.values())


def main() -> None:
    """The command."""
    arguments = parser(__doc__, devices=("cpu",))
    defaults = Options()
    arguments.add_argument("--jobs", type=int, default=defaults.jobs, help="default: %(default)s")
    arguments.add_argument("--workers", type=int, default=defaults.workers, help="default: %(default)s")
    arguments.add_argument(
        "--worker-jobs", type=int, default=defaults.worker_jobs, help="jobs a worker trains at once (default: 1)"
    )
    arguments.add_argument(
        "--kill-seconds", type=float, default=defaults.kill_seconds, help="between strikes (default: %(default)s)"
    )
    arguments.add_argument("--base", help="path or name of the base (default: a small random one, made for the run)")
    arguments.add_argument("--database-url", metavar="URL", help="an empty one (default: SQLite, made for the run)")
    given = arguments.parse_args()
    options = Options(given.jobs, given.workers, given.worker_jobs, given.kill_seconds, given.base, given.database_url)
    report = Report(given.device, COLUMNS)
    unharmed = run(options, report)
    report.write(given.json)
    sys.exit(not unharmed)


if __name__ == "__main__":
    main()
