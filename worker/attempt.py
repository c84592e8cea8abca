"""One attempt at a job: prepare it, follow the engine's reports, and turn each into a fenced write."""

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, assert_never

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from osora_core.data import Example, Renderer, read_examples
from osora_core.errors import CorruptArtifact, DataError, OsoraCoreError
from osora_core.training import Checkpoint, Evaluation, Outcome, Progress, TrainingJob
from registry import jobs
from registry.context import Registry
from registry.jobs import Attempt, FileRef, JobError, LeaseLost, NewAdapter
from worker.reports import ProgressMeter, Reports, Signal
from worker.spec import training_spec
from worker.threads import EngineThread

logger = logging.getLogger(__name__)

T = TypeVar("T")

_METRICS_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class _Over(Exception):
    """The attempt has ended as it should; nothing more is to be reported."""


def run_attempt(registry: Registry, engine: EngineThread, attempt: Attempt, reports: Reports) -> None:
    """Run an attempt to its end. Never raises for what is wrong with the job: that is written to the job."""
    runner = _Runner(registry, engine, attempt, reports)
    try:
        runner.run()
    except _Over:
        pass
    except LeaseLost as error:
        logger.warning("job %s: %s", attempt.job_id, error)
    finally:
        engine.call(lambda e: e.discard(attempt.job_id))


class _Runner:
    def __init__(self, registry: Registry, engine: EngineThread, attempt: Attempt, reports: Reports) -> None:
        self.registry = registry
        self.engine = engine
        self.attempt = attempt
        self.reports = reports
        self.meter = ProgressMeter()
        self.written_at = 0.0
        self.metrics: dict[str, Any] = {}

    def run(self) -> None:
        try:
            job = self._prepare()
            self.engine.call(lambda e: e.add(job))
            while True:
                self._react(self.reports.next())
        except (_Over, LeaseLost):
            raise
        except Exception as error:
            self._fail(error)

    def _prepare(self) -> TrainingJob:
        """Everything the engine needs: rendered rows, spec, and the newest checkpoint that is whole."""
        attempt = self.attempt
        runtime = self.engine.engine.runtime
        limit = min(attempt.osora.get("max_length") or runtime.max_length, runtime.max_length)
        renderer = Renderer(runtime.tokenizer, limit)
        train = self._examples(attempt.training_file, renderer)
        valid = self._examples(attempt.validation_file, renderer) if attempt.validation_file else []
        spec = training_spec(attempt.hyperparameters, attempt.osora, rows=len(train), seed=attempt.seed)
        return TrainingJob(attempt.job_id, spec, train, self.reports, valid, self._resume_point())

    def _examples(self, file: FileRef, renderer: Renderer) -> list[Example]:
        data = self.registry.store.get(file.object_key)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise CorruptArtifact(f"file {file.id} is not what was uploaded: its hash has changed")
        try:
            return read_examples(data.splitlines(), renderer)
        except DataError as error:
            error.message = f"file {file.id}, {error}"
            raise

    def _resume_point(self) -> Checkpoint | None:
        ref = self.attempt.checkpoint
        if ref is None:
            return None
        return Checkpoint.from_bytes(self.registry.store.get(ref.object_key), ref.sha256)

    def _react(self, report: Progress | Evaluation | Checkpoint | Outcome | Exception | Signal) -> None:
        match report:
            case Progress():
                self._progress(report)
            case Evaluation():
                self._evaluated(report)
            case Checkpoint():
                self._checkpoint(report)
            case Outcome():
                self._finished(report)
            case Exception():
                raise report
            case "lost":
                raise LeaseLost(f"attempt {self.attempt.number} has lost its lease")
            case "cancel":
                self._write(lambda session: jobs.finish_cancelled(session, self.attempt))
                raise _Over
            case "pause":
                self._checkpoint(self._leave())
                self._write(lambda session: jobs.finish_paused(session, self.attempt))
                raise _Over
            case "drain":
                self._checkpoint(self._leave())
                self._write(lambda session: jobs.release(session, self.attempt, "its worker is stopping"))
                raise _Over
            case _:
                assert_never(report)

    def _leave(self) -> Checkpoint:
        """Take the job out of the engine. If it has just finished or failed, its last report decides instead."""
        job_id = self.attempt.job_id
        checkpoint = self.engine.call(lambda e: e.remove(job_id) if job_id in e.jobs else None)
        while checkpoint is None:
            self._react(self.reports.next())
        return checkpoint

    def _progress(self, progress: Progress) -> None:
        self.meter.add(progress)
        last = progress.step == progress.total_steps
        if last or time.monotonic() - self.written_at >= _METRICS_SECONDS:
            metrics = self.meter.take(progress)
            finish = time.time() + metrics["remaining_seconds"]
            self._metrics(progress.step, progress.total_steps, progress.trained_tokens, metrics, finish)
            self.written_at = time.monotonic()

    def _evaluated(self, evaluation: Evaluation) -> None:
        metrics = {"valid_loss": evaluation.loss, "valid_mean_token_accuracy": evaluation.accuracy}
        self._metrics(evaluation.step, evaluation.total_steps, None, metrics, None)

    def _metrics(
        self, step: int, total_steps: int, tokens: int | None, metrics: dict[str, Any], finish: float | None
    ) -> None:
        self.metrics |= metrics
        tokens = self.metrics.get("trained_tokens", self.attempt.trained_tokens) if tokens is None else tokens
        self._write(
            lambda session: jobs.record_progress(
                session,
                self.attempt,
                step=step,
                total_steps=total_steps,
                trained_tokens=tokens,
                metrics=metrics,
                estimated_finish=finish,
            )
        )

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        """Upload first, point to it after: the row never names an object that is not whole."""
        data = checkpoint.to_bytes()
        key = f"checkpoints/{self.attempt.job_id}/{self.attempt.number}/{checkpoint.step}.safetensors"
        self.registry.store.put(key, data)
        self._write(
            lambda session: jobs.record_checkpoint(
                session,
                self.attempt,
                step=checkpoint.step,
                object_key=key,
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                metrics=self.metrics,
            )
        )

    def _finished(self, outcome: Outcome) -> None:
        """Upload the adapter, read it back, then publish it and end the job in one transaction."""
        adapter = outcome.adapter
        data = adapter.to_zip()
        key = f"adapters/{self.attempt.job_id}/{self.attempt.number}/adapter.zip"
        sha256 = hashlib.sha256(data).hexdigest()
        self.registry.store.put(key, data)
        if hashlib.sha256(self.registry.store.get(key)).hexdigest() != sha256:
            raise CorruptArtifact(f"the object store gave back other bytes than it was given for {key}")
        new = NewAdapter(
            object_key=key,
            sha256=sha256,
            bytes=len(data),
            base_fingerprint=adapter.base_fingerprint,
            basis_fingerprint=adapter.basis_fingerprint,
            rank=adapter.rank,
            parameters=adapter.parameters,
            target_modules=adapter.target_modules,
        )
        self._write(
            lambda session: jobs.complete(
                session,
                self.attempt,
                step=outcome.step,
                trained_tokens=outcome.trained_tokens,
                adapter=new,
                metrics=self.metrics,
            )
        )
        raise _Over

    def _fail(self, error: Exception) -> None:
        logger.warning("job %s failed: %s", self.attempt.job_id, error, exc_info=not isinstance(error, OsoraCoreError))
        self._write(lambda session: jobs.fail(session, self.attempt, describe(error)))

    def _write(self, action: Callable[[Session], T]) -> T:
        """A fenced write, tried until the database takes it: an outage is waited out, a lost lease is not."""
        while True:
            try:
                with self.registry.transaction() as session:
                    return action(session)
            except OperationalError as error:
                logger.warning("job %s: the database refused a write, trying again: %s", self.attempt.job_id, error)
                time.sleep(_RETRY_SECONDS)


def describe(error: Exception) -> JobError:
    """An error as the job keeps it. What is not ours is a platform fault: it may not happen again."""
    if not isinstance(error, OsoraCoreError):
        return {
            "code": "worker_error",
            "message": f"The worker failed with {type(error).__name__}; its log has the details",
            "param": None,
            "fault": "platform",
            "next_action": "nothing: the job is tried again by itself",
        }
    described: JobError = {
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "fault": "user" if error.fault == "user" else "platform",
        "next_action": error.next_action,
    }
    if isinstance(error, DataError):
        described["line"] = error.line
    return described
