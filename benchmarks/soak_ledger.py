"""What the database says after a soak: every job's end, history and cost, held to what they should be."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sqlalchemy import func, or_, select

from benchmarks.soak_jobs import CHECKPOINT_STEPS, Kind, Result, result
from registry import jobs
from registry.context import Registry
from registry.models import Adapter, Job, JobAttempt, JobEvent
from registry.tenants import Principal

_BEGINNING = "Created fine-tuning job"
_SUCCESS = "The job has successfully completed"
_ENDINGS = (_SUCCESS, "The job failed: ", "Job cancelled")
_CLAIMED = re.compile(r"Fine-tuning job (?:started|resumed from step (\d+) \(attempt (\d+)\))$")
_CHECKPOINT = re.compile(r"Checkpoint created at step (\d+)$")
_EVENTS = 10_000


@dataclass
class Ledger:
    """Ids of jobs that are not as they should be, and what all of them cost in steps."""

    lost: list[str] = field(default_factory=list)
    """Not succeeded."""
    duplicated: list[str] = field(default_factory=list)
    """More than one adapter, end, or attempt that succeeded."""
    wrong: list[str] = field(default_factory=list)
    """Succeeded with another adapter, loss curve or count of tokens than undisturbed."""
    disordered: list[str] = field(default_factory=list)
    """A history that does not tell one story from the beginning to the end."""
    leases: list[str] = field(default_factory=list)
    """Jobs with a lease, and with an attempt that is open, though nobody works any more."""
    attempts: int = 0
    useful_steps: int = 0
    """The steps that the jobs consist of."""
    repeated_steps: int = 0
    """Steps that an attempt reported and the next one ran again."""
    intervals: list[int] = field(default_factory=list)
    """Steps between one stored checkpoint and the next, but for those of drains, which come early."""
    repeated_of_lost: list[int] = field(default_factory=list)
    """Those of the repeated steps that lost attempts reported, by attempt."""

    @property
    def charged_steps(self) -> float:
        """The repeated steps, and an estimate for what was never reported.

        A worker that is killed takes with it what it did since its last report, up to half a second. So each attempt
        that was lost is charged with no less than the mean distance between two checkpoints: about twice the steps
        that lie, in the mean, between the last checkpoint and a moment that is nobody's choice.
        """
        if not self.intervals:
            return self.repeated_steps
        interval = sum(self.intervals) / len(self.intervals)
        return self.repeated_steps + sum(max(0.0, interval - known) for known in self.repeated_of_lost)

    @property
    def wasted_share(self) -> float:
        """Of all steps that were run, those that were run again."""
        return self.charged_steps / max(1.0, self.useful_steps + self.charged_steps)


def audit(
    registry: Registry,
    principal: Principal,
    submitted: Mapping[str, Kind],
    undisturbed: Mapping[Kind, Result],
    same: Callable[[Result, Result], bool],
) -> Ledger:
    """Look at every submitted job, and at all leases there are. `same` says whether two results are."""
    ledger = Ledger()
    for job_id, kind in submitted.items():
        with registry.reading() as session:
            job = jobs.get(session, principal, job_id)
            attempts = jobs.attempts(session, principal, job_id)
            history = jobs.events(session, principal, job_id, limit=_EVENTS).data
            adapters = session.scalar(select(func.count()).where(Adapter.job_id == job_id)) or 0
        succeeded = sum(attempt.outcome == "succeeded" for attempt in attempts)
        ends = sum(event.message.startswith(_ENDINGS) for event in history)
        if job.status != "succeeded":
            ledger.lost.append(job_id)
        elif not same(result(registry, principal, job_id), undisturbed[kind]):
            ledger.wrong.append(job_id)
        if max(adapters, succeeded, ends) > 1:
            ledger.duplicated.append(job_id)
        if not _read(history, attempts, ledger.intervals):
            ledger.disordered.append(job_id)
        _count_steps(ledger, job, attempts)
    with registry.reading() as session:
        held = or_(Job.status == "running", Job.lease_token.is_not(None), Job.lease_expires_at.is_not(None))
        ledger.leases += session.scalars(select(Job.id).where(held))
        ledger.leases += session.scalars(select(JobAttempt.job_id).where(JobAttempt.outcome.is_(None)))
    return ledger


def _count_steps(ledger: Ledger, job: Job, attempts: Sequence[JobAttempt]) -> None:
    ledger.attempts += len(attempts)
    ledger.useful_steps += job.step
    for attempt, following in pairwise(attempts):
        repeated = max(0, attempt.last_step - following.first_step)
        ledger.repeated_steps += repeated
        if attempt.outcome == "lost":
            ledger.repeated_of_lost.append(repeated)


def _read(history: Sequence[JobEvent], attempts: Sequence[JobAttempt], intervals: list[int]) -> bool:
    """Whether a job's events, by their ids, tell of the attempts one after the other, each from the last checkpoint on
    and never backwards, and end where the job does. Notes the distances between checkpoints."""
    told, step, checkpoint = 0, 0, 0
    for event in history:
        reported = event.data["step"] if event.type == "metrics" and event.data else None
        if claimed := _CLAIMED.match(event.message):
            told += 1
            step = int(claimed[1] or 0)
            if step != checkpoint or int(claimed[2] or 1) != told:
                return False
        elif stored := _CHECKPOINT.match(event.message):
            reported = int(stored[1])
            if reported - checkpoint >= CHECKPOINT_STEPS:
                intervals.append(reported - checkpoint)
            checkpoint = reported
        if reported is not None:
            if reported < step:
                return False
            step = reported
    times = [event.created_at for event in history]
    return (
        times == sorted(times)
        and told == len(attempts)
        and history[0].message.startswith(_BEGINNING)
        and history[-1].message.startswith(_ENDINGS)
    )
