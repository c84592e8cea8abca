"""One attempt at a job: follow the engine's reports and the registry's signals, and turn each into a fenced write."""

import logging
import time
from dataclasses import asdict
from typing import Any, assert_never

from osora_core.errors import OsoraCoreError, OutOfSlots
from osora_core.training import Checkpoint, Evaluation, Outcome, Progress, Rung, Samples
from osora_core.training.errors import DuplicateJob, NotEnoughMemory
from registry import jobs
from registry.context import Registry
from registry.jobs import Attempt, LeaseLostError
from registry.outages import OUTAGES, first_line
from registry.scrubbing import SAMPLE
from worker.describe import describe
from worker.patience import DrainTimeoutError, Patience
from worker.places import Place
from worker.points import reached
from worker.prepare import prepare
from worker.publish import publish_checkpoint, publish_outcome
from worker.records import Records
from worker.remarks import remarks, rung_message
from worker.reports import Interruption, ProgressMeter, Report, Reports, Signal, SteppedDown, evaluation_metrics
from worker.threads import EngineThread
from worker.work import Work

logger = logging.getLogger(__name__)

METRICS_SECONDS = 0.5
_LOOK_SECONDS = 0.5

REASONS: dict[Signal, str] = {
    "cancel": "its tenant cancelled it",
    "pause": "its tenant paused it",
    "suspend": "its tenant is suspended",
    "drain": "its worker is stopping",
}


_TOO_LATE = "other jobs were ready to train first"


class _TooLateError(Exception):
    """There is no room for the job after all."""


def run_attempt(registry: Registry, engine: EngineThread, attempt: Attempt, reports: Reports, place: Place) -> None:
    """Run an attempt to its end. Never raises for what is wrong with the job: that is written to the job."""
    run_with(Runner, registry, engine, attempt, reports, place)


def run_with(
    kind: type["Runner"],
    registry: Registry,
    engine: EngineThread,
    attempt: Attempt,
    reports: Reports,
    place: Place,
) -> None:
    """The same, with a runner of this kind."""
    patience = Patience(attempt.job_id, reports)
    runner = kind(Records(registry, attempt, patience), engine, reports, patience, place)
    try:
        runner.run()
    except (LeaseLostError, DrainTimeoutError, Interruption) as error:
        logger.warning("job %s: attempt %d lets go: %s", attempt.job_id, attempt.number, error)
    finally:
        if runner.work is not None:
            engine.post(runner.work.discard)


class Runner:
    """Reacts to whatever an attempt hears of."""

    work: Work | None = None
    """What is trained, from when it is about to join the engine."""

    def __init__(
        self, records: Records, engine: EngineThread, reports: Reports, patience: Patience, place: Place
    ) -> None:
        self.place = place
        self.records = records
        self.engine = engine
        self.attempt = records.attempt
        self.reports = reports
        self.patience = patience
        self.meter = ProgressMeter()
        self.written_at = 0.0
        self.metrics: dict[str, Any] = {}
        """Of training, up to the last step that was told."""
        self.compute_seconds = 0.0
        self.store_is_down = False

    def run(self) -> None:
        joined: Work | None = None
        try:
            try:
                self.work = prepare(self.records, self.engine, self.reports, self.place.turns)
                self._wait_for_place()
                self._join(self.work)
                joined = self.work
                reached("joined", self.attempt.job_id)
                while self._goes_on_after(self.reports.next(), joined):
                    pass
            except Interruption as interruption:
                self._leave(interruption.signal, joined)
            except _TooLateError:
                self.records.write(lambda session: jobs.release(session, self.attempt, _TOO_LATE))
        except (LeaseLostError, DrainTimeoutError):
            raise
        except Exception as error:
            self._fail(error)

    def _wait_for_place(self) -> None:
        """There is room to train, unless other jobs were ready first."""
        is_told = False
        while not self.place.begins_to_train(0.0 if is_told else _LOOK_SECONDS):
            if self.place.is_guest:
                raise _TooLateError
            if not is_told:
                self.records.say("Waiting until another job has ended: others were ready to train first")
            is_told = True
            self.reports.pause(_LOOK_SECONDS)

    def _join(self, work: Work) -> None:
        """A job has a slot for certain; a sweep, or one that needs two, waits until there are enough. So does any that
        does not fit the memory beside the others."""
        waits = False
        while True:
            try:
                return self.reports.wait_for(self.engine.post(work.join))
            except DuplicateJob:
                # An attempt that this process has lost. It has been told, and takes its job out when it reacts.
                logger.warning(
                    "job %s: attempt %d waits for the one before it", self.attempt.job_id, self.attempt.number
                )
            except (OutOfSlots, NotEnoughMemory) as error:
                if not waits:
                    others = "other sweeps" if isinstance(error, OutOfSlots) else "other jobs"
                    self.records.say(f"Waiting until {others} have ended: {error.message}")
                waits = True
            self.reports.pause(_LOOK_SECONDS)

    def _goes_on_after(self, report: Report | Signal, work: Work) -> bool:
        """React to what has happened; False if it was the attempt's end. Raises what the engine reports as an error."""
        match report:
            case Progress():
                self._progress(report)
            case Evaluation():
                self._metrics(report.step, report.total_steps, evaluation_metrics(report), remaining_seconds=None)
            case Samples():
                self._samples(report)
            case SteppedDown():
                self.records.say(
                    f"Memory ran out: goes on with {report.pass_tokens} tokens at once; the result is the same", "warn"
                )
            case Checkpoint():
                self._checkpoint(report, work)
            case Rung():
                self.records.say(rung_message(report), data=asdict(report))
            case Outcome():
                for remark, level in remarks(work.job, report, self.attempt.points):
                    self.records.say(remark, level)
                publish_outcome(self.records, self.engine, report, self.metrics)
                return False
            case Exception():
                raise report
            case "lost" | "cancel" | "pause" | "suspend" | "drain":
                self._leave(report, work)
                return False
            case _:
                assert_never(report)
        return True

    def _leave(self, signal: Signal, work: Work | None) -> None:
        """Obey: checkpoint where the job is to go on later, and give it back. The row says what becomes of it."""
        if signal == "lost":
            raise LeaseLostError("its lease is another's or nobody's")
        self.patience.leaving = True
        if signal != "cancel" and work is not None:
            try:
                if not self._save_state(work):
                    return
            except DrainTimeoutError as error:
                logger.warning("job %s: its last checkpoint stands: %s", self.attempt.job_id, error)
        self.records.write(lambda session: jobs.release(session, self.attempt, REASONS[signal]))

    def _save_state(self, work: Work) -> bool:
        """Take the job out of the engine and store where it was; False if it has just ended, as its last report says.

        What a step takes longer than a draining worker has is lost: the job repeats it from its last checkpoint.
        """
        leaving = self.engine.post(work.leave)
        while True:
            try:
                checkpoint = leaving.result(timeout=1.0)
                break
            except TimeoutError:
                if self.patience.seconds_left() == 0:
                    raise DrainTimeoutError("the engine's step takes longer than the worker has") from None
        # What the engine has said up to here belongs to the job's history, and may be the job's end.
        for report in self.reports.rest():
            old = isinstance(report, Checkpoint) and not report.ends_epoch
            if not old and not self._goes_on_after(report, work):
                return False
        if checkpoint is not None:
            self._flush_meter()
            publish_checkpoint(self.records, self.engine, work.job, checkpoint, self.metrics, patiently=True)
        return True

    def _progress(self, progress: Progress) -> None:
        reached("stepped", self.attempt.job_id)
        self.meter.add(progress)
        self.compute_seconds = progress.compute_seconds
        last = progress.step == progress.total_steps
        if last or time.monotonic() - self.written_at >= METRICS_SECONDS:
            self._flush_meter()
            self.written_at = time.monotonic()

    def _flush_meter(self) -> None:
        latest = self.meter.latest
        if latest is not None:
            metrics = self.metrics = self.meter.take()
            self._metrics(latest.step, latest.total_steps, metrics, remaining_seconds=metrics["remaining_seconds"])

    def _metrics(
        self, step: int, total_steps: int, metrics: dict[str, Any], *, remaining_seconds: float | None
    ) -> None:
        self.records.write(
            lambda session: jobs.record_progress(
                session,
                self.attempt,
                step=step,
                total_steps=total_steps,
                trained_tokens=self.metrics.get("trained_tokens", self.attempt.trained_tokens),
                metrics=metrics,
                compute_seconds=self.compute_seconds,
                remaining_seconds=remaining_seconds,
            )
        )

    def _samples(self, samples: Samples) -> None:
        """Prompts and texts are the tenant's: they go into the job's events, and into no log."""
        for prompt, text in zip(self.attempt.osora["sample_prompts"], samples.texts, strict=True):
            said = {"step": samples.step, "prompt": prompt, "text": text}
            self.records.say(f"{SAMPLE}{samples.step}", data=said)

    def _checkpoint(self, checkpoint: Checkpoint, work: Work) -> None:
        """While the object store is down, training goes on; a later checkpoint takes this one's place."""
        self._flush_meter()
        try:
            publish_checkpoint(self.records, self.engine, work.job, checkpoint, self.metrics, patiently=False)
            self.store_is_down = False
        except OUTAGES as error:
            logger.warning("job %s: a checkpoint could not be stored: %s", self.attempt.job_id, first_line(error))
            if not self.store_is_down:
                message = f"The checkpoint of step {checkpoint.step} could not be stored; training goes on"
                self.records.say(message, "warn")
            self.store_is_down = True

    def _fail(self, error: Exception) -> None:
        described = describe(error)
        # The code alone: a message may quote a row, and the job has it for its owner.
        is_ours = isinstance(error, OsoraCoreError)
        logger.warning("job %s failed: %s", self.attempt.job_id, described["code"], exc_info=not is_ours)
        self.records.write(lambda session: jobs.fail(session, self.attempt, described))
