"""One attempt at a job: prepare it, follow the engine's reports, and turn each into a fenced write."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar, assert_never

from sqlalchemy.orm import Session

from osora_core import canary
from osora_core.data import Renderer, Row
from osora_core.errors import CorruptArtifact, DataError, OsoraCoreError, OutOfSlots, UserError
from osora_core.training import (
    Checkpoint,
    Evaluation,
    JobSpec,
    Outcome,
    Progress,
    Rung,
    Samples,
    Sweep,
    SweepCheckpoint,
    SweepOutcome,
    TrainingEngine,
    TrainingJob,
    methods,
)
from osora_core.training.errors import NotEnoughMemory
from registry import jobs
from registry.context import Registry
from registry.errors import NotFound
from registry.jobs import Attempt, CheckpointRef, FileRef, LeaseLost
from registry.models import EventLevel
from registry.outages import OUTAGES, first_line
from worker.artifacts import artifact, result_files
from worker.errors import describe
from worker.patience import GaveUp, Patience
from worker.points import reached
from worker.prompts import sample_prompts
from worker.remarks import plan, remarks, rung
from worker.reports import Interrupted, ProgressMeter, Report, Reports, Signal, SteppedDown, evaluation_metrics
from worker.spec import plan_of
from worker.start import fetch_start
from worker.sweeps import Decision, MakeJob, Rows, decide
from worker.threads import EngineThread

logger = logging.getLogger(__name__)

T = TypeVar("T")

MakeWork = Callable[[Checkpoint | None], TrainingJob | Sweep]

_METRICS_SECONDS = 0.5
_LOOK_SECONDS = 0.5

# As registry.jobs.turns counts running jobs: one of high priority is half as heavy, so it gets twice the share.
_WEIGHTS = {"high": 2.0, "normal": 1.0, "low": 0.5}

_REASONS: dict[Signal, str] = {
    "cancel": "its tenant cancelled it",
    "pause": "its tenant paused it",
    "drain": "its worker is stopping",
}


class _Over(Exception):
    """The attempt has ended as it should; nothing more is to be reported."""


def run_attempt(registry: Registry, engine: EngineThread, attempt: Attempt, reports: Reports) -> None:
    """Run an attempt to its end. Never raises for what is wrong with the job: that is written to the job."""
    runner = _Runner(registry, engine, attempt, reports)
    try:
        runner.run()
    except _Over:
        pass
    except (LeaseLost, GaveUp, Interrupted) as error:
        logger.warning("job %s: attempt %d lets go: %s", attempt.job_id, attempt.number, error)
    finally:
        engine.post(runner.discard)


class _Runner:
    job: TrainingJob
    """What is trained; of a sweep, the job that its members are made after."""

    def __init__(self, registry: Registry, engine: EngineThread, attempt: Attempt, reports: Reports) -> None:
        self.registry = registry
        self.engine = engine
        self.attempt = attempt
        self.reports = reports
        self.patience = Patience(attempt.job_id, reports)
        self.meter = ProgressMeter()
        self.written_at = 0.0
        self.metrics: dict[str, Any] = {}
        self.compute_seconds = 0.0
        self.store_is_down = False
        self.sweep: Sweep | None = None

    def run(self) -> None:
        try:
            try:
                self._begin()
                while True:
                    self._react(self.reports.next())
            except Interrupted as interrupted:
                self._leave(interrupted.signal)
        except (_Over, LeaseLost, GaveUp):
            raise
        except Exception as error:
            self._fail(error)

    def _begin(self) -> None:
        """Hand the engine all that it needs: rendered rows, spec, and the newest checkpoint that is whole."""
        attempt, runtime = self.attempt, self.engine.engine.runtime
        limit = min(attempt.osora.get("max_length") or runtime.max_length, runtime.max_length)
        renderer = Renderer(runtime.tokenizer, limit)
        train = self._rows(attempt.training_file, renderer)
        valid = self._rows(attempt.validation_file, renderer) if attempt.validation_file else []

        prompts = sample_prompts(attempt, renderer)
        start = fetch_start(attempt, runtime.basis, lambda key: self._stored(lambda: self.registry.store.get(key)))

        def job(spec: JobSpec, rows: Sequence[Row], resume: Checkpoint | None = None) -> TrainingJob:
            return TrainingJob(
                attempt.job_id,
                spec,
                rows,
                self.reports,
                valid,
                resume,
                checkpoint_steps=attempt.osora.get("checkpoint_steps", self.registry.settings.checkpoint_steps),
                checkpoint_seconds=attempt.osora.get("checkpoint_seconds", self.registry.settings.checkpoint_seconds),
                start=start,
                tenant=attempt.tenant_id,
                weight=_WEIGHTS[attempt.osora.get("priority", "normal")],
                prompts=prompts,
                sample_tokens=attempt.osora.get("sample_tokens", TrainingJob.sample_tokens),
            )

        decision = self._decision(train, valid, job)
        rows = Rows.of(decision.specs, train, valid, attempt.seed)
        if attempt.plan is None:
            message, data = plan(job(decision.specs[0], rows.train), decision, rows), decision.to_event()
            decided = plan_of(decision.specs)
            self._write(lambda session: jobs.record_plan(session, attempt, decided, message, data=data))

        def work(resume: Checkpoint | None) -> TrainingJob | Sweep:
            first, *others = decision.specs
            if not others:
                return job(first, rows.train, resume)
            assert resume is None or isinstance(resume, SweepCheckpoint)
            return Sweep(job(first, rows.train), decision.specs, rows.choice, self.reports, resume)

        kind = SweepCheckpoint if len(decision.specs) > 1 else Checkpoint
        self._join(self._resumed(work, kind) or work(None))
        reached("joined", attempt.job_id)

    def _decision(self, train: Sequence[Row], valid: Sequence[Row], job: MakeJob) -> Decision:
        """What the job's first attempt decided, or, in that one, what the job trains."""
        if self.attempt.plan is not None:
            return Decision([JobSpec.from_dict(spec) for spec in self.attempt.plan["specs"]])
        return decide(self.attempt, train, valid, job, self.engine, self.registry.settings.sweep_members)

    def _join(self, work: TrainingJob | Sweep) -> None:
        """A job has a slot for certain; a sweep, or one that needs two, waits until there are enough. So does any that
        does not fit the memory beside the others."""

        def join(engine: TrainingEngine) -> None:
            if isinstance(work, TrainingJob):
                engine.add(work)
            else:
                work.join(engine)

        self.job, self.sweep = (work, None) if isinstance(work, TrainingJob) else (work.job, work)
        waits = False
        while True:
            try:
                return self.engine.call(join)
            except (OutOfSlots, NotEnoughMemory) as error:
                if not waits:
                    others = "other sweeps" if isinstance(error, OutOfSlots) else "other jobs"
                    self._say(f"Waiting until {others} have ended: {error.message}")
                waits = True
                self.reports.pause(_LOOK_SECONDS)

    def discard(self, engine: TrainingEngine) -> None:
        """Take out of the engine whatever of the job is in it."""
        if self.sweep is not None:
            self.sweep.discard(engine)
        engine.discard(self.attempt.job_id)

    def _remove(self, engine: TrainingEngine) -> Checkpoint | None:
        """Take the job out with its state; None if it has just ended, or has not joined."""
        if self.sweep is not None:
            return self.sweep.leave(engine)
        job_id = self.attempt.job_id
        return engine.remove(job_id) if job_id in engine.jobs else None

    def _rows(self, file: FileRef, renderer: Renderer) -> list[Row]:
        data = self._stored(lambda: self.registry.store.get(file.object_key))
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise CorruptArtifact(f"file {file.id} is not what was uploaded: its hash has changed")
        try:
            return list(methods.named(self.attempt.method).read(self._interruptible(data.splitlines()), renderer))
        except DataError as error:
            error.message = f"file {file.id}, {error}"
            raise

    def _interruptible(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """A large file takes longer to render than a tenant who cancels, or a worker that stops, will wait."""
        for line in lines:
            self.reports.pause(0)
            yield line

    def _resumed(self, work: MakeWork, kind: type[Checkpoint]) -> TrainingJob | Sweep | None:
        """The job at its newest checkpoint that is whole and its own; None if it starts from the beginning."""
        complaints = []
        found = None
        for ref in self.attempt.checkpoints:
            try:
                found = self._at(ref, work, kind)
                break
            except (CorruptArtifact, NotFound, UserError) as error:
                complaints.append(f"the checkpoint of step {ref.step} cannot be used: {error}")
        if complaints:
            step = found.resume.step if found is not None and found.resume is not None else 0
            self._write(
                lambda session: jobs.began_at(
                    session, self.attempt, step, f"Resuming from step {step}: {'; '.join(complaints)}"
                )
            )
        return found

    def _at(self, ref: CheckpointRef, work: MakeWork, kind: type[Checkpoint]) -> TrainingJob | Sweep:
        data = self._stored(lambda: self.registry.store.get(ref.object_key))
        checkpoint = kind.from_bytes(data, ref.sha256)
        found = work(checkpoint)
        if checkpoint.identity != found.identity(self.engine.engine.runtime.basis):
            raise CorruptArtifact("it belongs to another spec, dataset or basis")
        return found

    def _react(self, report: Report | Signal) -> None:
        match report:
            case Progress():
                self._progress(report)
            case Evaluation():
                self._metrics(report.step, report.total_steps, evaluation_metrics(report), remaining_seconds=None)
            case Samples():
                self._samples(report)
            case SteppedDown():
                self._say(
                    f"Memory ran out: goes on with {report.pass_tokens} tokens at once; the result is the same", "warn"
                )
            case Checkpoint():
                self._checkpoint(report)
            case Rung():
                self._say(rung(report), data=asdict(report))
            case Outcome():
                self._finished(report)
            case Exception():
                raise report
            case "lost" | "cancel" | "pause" | "drain":
                self._leave(report)
            case _:
                assert_never(report)

    def _leave(self, signal: Signal) -> None:
        """Obey: checkpoint where the job is to go on later, and give it back. The row says what becomes of it."""
        if signal == "lost":
            raise LeaseLost("its lease is another's or nobody's")
        self.patience.leaving = True
        if signal != "cancel":
            try:
                self._save_state()
            except GaveUp as error:
                logger.warning("job %s: its last checkpoint stands: %s", self.attempt.job_id, error)
        self._write(lambda session: jobs.release(session, self.attempt, _REASONS[signal]))
        raise _Over

    def _save_state(self) -> None:
        """Take the job out of the engine and store where it was. If it has just ended, its last report decides.

        What a step takes longer than a draining worker has is lost: the job repeats it from its last checkpoint.
        """
        leaving = self.engine.post(self._remove)
        while True:
            try:
                checkpoint = leaving.result(timeout=1.0)
                break
            except TimeoutError:
                if self.patience.seconds_left() == 0:
                    raise GaveUp("the engine's step takes longer than the worker has") from None
        # What the engine has said up to here belongs to the job's history, and may be the job's end.
        for report in self.reports.rest():
            if not isinstance(report, Checkpoint) or report.ends_epoch:
                self._react(report)
        if checkpoint is not None:
            self._flush_meter()
            self._store_checkpoint(checkpoint, patiently=True)

    def _progress(self, progress: Progress) -> None:
        reached("stepped", self.attempt.job_id)
        self.meter.add(progress)
        self.compute_seconds = progress.compute_seconds
        last = progress.step == progress.total_steps
        if last or time.monotonic() - self.written_at >= _METRICS_SECONDS:
            self._flush_meter()
            self.written_at = time.monotonic()

    def _flush_meter(self) -> None:
        latest = self.meter.latest
        if latest is not None:
            metrics = self.meter.take()
            self._metrics(latest.step, latest.total_steps, metrics, remaining_seconds=metrics["remaining_seconds"])

    def _metrics(
        self, step: int, total_steps: int, metrics: dict[str, Any], *, remaining_seconds: float | None
    ) -> None:
        self.metrics |= metrics
        self._write(
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
            self._say(f"Sample after step {samples.step}", data={"step": samples.step, "prompt": prompt, "text": text})

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        """While the object store is down, training goes on; a later checkpoint takes this one's place."""
        self._flush_meter()
        try:
            self._store_checkpoint(checkpoint, patiently=False)
            self.store_is_down = False
        except OUTAGES as error:
            logger.warning("job %s: a checkpoint could not be stored: %s", self.attempt.job_id, first_line(error))
            if not self.store_is_down:
                self._say(f"The checkpoint of step {checkpoint.step} could not be stored; training goes on", "warn")
            self.store_is_down = True

    def _store_checkpoint(self, checkpoint: Checkpoint, *, patiently: bool) -> None:
        """Upload first, point to it after: the row never names an object that is not whole."""
        data, job_id = checkpoint.to_bytes(), self.attempt.job_id
        key = f"checkpoints/{job_id}/{self.attempt.number}/{checkpoint.step}"
        adapter = self.job.adapter(checkpoint.values, self.engine.engine.runtime)
        zipped, new = artifact(adapter, f"{key}.zip", checkpoint.step)

        def upload() -> None:
            reached("checkpoint_uploading", job_id)
            self.registry.store.put(f"{key}.safetensors", data)
            self.registry.store.put(new.object_key, zipped)

        if patiently:
            self._stored(upload)
        else:
            upload()
        reached("checkpoint_uploaded", job_id)
        superseded = self._write(
            lambda session: jobs.record_checkpoint(
                session,
                self.attempt,
                step=checkpoint.step,
                object_key=f"{key}.safetensors",
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                adapter=new,
                ends_epoch=checkpoint.ends_epoch,
                metrics=self.metrics,
            )
        )
        reached("checkpoint_recorded", job_id)
        for old in superseded:
            self._delete(old)

    def _delete(self, key: str) -> None:
        try:
            self.registry.store.delete(key)
        except OUTAGES as error:
            logger.info("%s is left to the sweep: %s", key, first_line(error))

    def _finished(self, outcome: Outcome) -> None:
        """Upload adapter and curve, read the adapter back, then publish both and end the job in one transaction."""
        job_id = self.attempt.job_id
        for remark, level in remarks(self.job, outcome):
            self._say(remark, level)
        adapter = self.engine.call(
            lambda e: replace(outcome.adapter, canary=canary.compute(e.runtime, outcome.adapter))
        )
        folder = f"{job_id}/{self.attempt.number}"
        data, new = artifact(adapter, f"adapters/{folder}/adapter.zip", outcome.adapter_step)
        files = result_files(outcome, f"results/{folder}")

        def upload() -> bytes:
            reached("adapter_uploading", job_id)
            for content, file in files:
                self.registry.store.put(file.object_key, content)
            self.registry.store.put(new.object_key, data)
            return self.registry.store.get(new.object_key)

        if self._stored(upload) != data:
            raise CorruptArtifact(f"the object store gave back other bytes than it was given for {new.object_key}")
        reached("adapter_uploaded", job_id)
        self._write(
            lambda session: jobs.complete(
                session,
                self.attempt,
                step=outcome.step,
                trained_tokens=outcome.trained_tokens,
                adapter=new,
                metrics=self.metrics,
                result_files=[file for _, file in files],
                plan=plan_of([outcome.spec]) if isinstance(outcome, SweepOutcome) else None,
            )
        )
        reached("completed", job_id)
        raise _Over

    def _fail(self, error: Exception) -> None:
        logger.warning("job %s failed: %s", self.attempt.job_id, error, exc_info=not isinstance(error, OsoraCoreError))
        self._write(lambda session: jobs.fail(session, self.attempt, describe(error)))

    def _say(self, message: str, level: EventLevel = "info", data: dict[str, Any] | None = None) -> None:
        self._write(lambda session: jobs.add_event(session, self.attempt, message, level=level, data=data))

    def _stored(self, action: Callable[[], T]) -> T:
        """An action on the object store, tried until it works; the job's history says that it waits."""
        return self.patience(action, on_wait=lambda: self._say("Waiting for the object store", "warn"))

    def _write(self, action: Callable[[Session], T]) -> T:
        """A fenced write, tried until the database takes it: an outage is waited out, a lost lease is not."""

        def write() -> T:
            with self.registry.transaction() as session:
                return action(session)

        return self.patience(write)
