"""From a claimed job to what the engine trains: rendered rows, spec, and the newest checkpoint that is whole."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TypeVar

from osora_core.data import Renderer, Row, rows_of
from osora_core.errors import CorruptArtifact, DataError, UserError
from osora_core.training import Checkpoint, JobSpec, Sweep, SweepCheckpoint, TrainingJob, methods
from registry import jobs
from registry.errors import NotFound
from registry.jobs import CheckpointRef, FileRef
from worker.begun_with import fetch_start
from worker.hyperparameters import plan_of
from worker.prompts import sample_prompts
from worker.records import Records
from worker.remarks import announcement
from worker.reports import Reports
from worker.sweeps import Decision, Rows, decide
from worker.threads import EngineThread
from worker.work import SingleJob, Work

C = TypeVar("C", bound=Checkpoint)

# As registry.jobs.turns counts running jobs: one of high priority is half as heavy, so it gets twice the share.
_WEIGHTS = {"high": 2.0, "normal": 1.0, "low": 0.5}


def prepare(records: Records, engine: EngineThread, reports: Reports) -> Work:
    """What the attempt trains, not yet in the engine. The job's first attempt decides its plan here, and records it.

    Raises UserError for what only the tenant can mend, CorruptArtifact for stored bytes that have changed.
    """
    attempt, runtime = records.attempt, engine.engine.runtime
    limit = min(attempt.osora.get("max_length") or runtime.max_length, runtime.max_length)
    renderer = Renderer(runtime.tokenizer, limit, base_length=runtime.max_length)
    train = _rows(records, attempt.training_file, renderer, reports)
    valid = _rows(records, attempt.validation_file, renderer, reports) if attempt.validation_file else []
    prompts = sample_prompts(attempt, renderer)
    start = fetch_start(attempt, runtime.basis, records.fetch)
    settings = records.settings

    made: list[TrainingJob] = []

    def job(spec: JobSpec, rows: Sequence[Row], resume: Checkpoint | None = None) -> TrainingJob:
        def make(_: threading.Event) -> TrainingJob:
            return TrainingJob(
                attempt.job_id,
                spec,
                rows,
                reports,
                valid,
                resume,
                checkpoint_steps=attempt.osora.get("checkpoint_steps", settings.checkpoint_steps),
                checkpoint_seconds=attempt.osora.get("checkpoint_seconds", settings.checkpoint_seconds),
                start=start,
                tenant=attempt.tenant_id,
                weight=_WEIGHTS[attempt.osora.get("priority", "normal")],
                prompts=prompts,
                sample_tokens=attempt.osora.get("sample_tokens", TrainingJob.sample_tokens),
                same_rows_as=next((other for other in made if other.train is rows), None),
            )

        made.append(reports.aside(make))  # it reads all rows, if no other has
        return made[-1]

    if attempt.plan is None:
        decision = decide(records, train, valid, job, engine, reports)
    else:
        decision = Decision([JobSpec.from_dict(spec) for spec in attempt.plan["specs"]])
    first, *others = specs = decision.specs
    rows = Rows.of(specs, train, valid, attempt.seed)
    if attempt.plan is None:
        message = announcement(job(first, rows.train), decision, rows)
        records.write(
            lambda session: jobs.record_plan(session, attempt, plan_of(specs), message, data=decision.to_event())
        )
    if not others:
        return _resumed(records, engine, Checkpoint, lambda resume: SingleJob(job(first, rows.train, resume)))
    return _resumed(
        records,
        engine,
        SweepCheckpoint,
        lambda resume: Sweep(job(first, rows.train), specs, rows.choice, reports, resume),
    )


def _rows(records: Records, file: FileRef, renderer: Renderer, reports: Reports) -> list[Row]:
    """A large file takes longer to fetch and to render, and even one long row, than a tenant who cancels or a worker
    that stops will wait: so the attempt does not wait for it."""
    data = records.stored(lambda: reports.aside(lambda _: records.store.get(file.object_key)))
    method = methods.named(records.attempt.method)

    def read(left: threading.Event) -> list[Row]:
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise CorruptArtifact(f"file {file.id} is not what was uploaded: its hash has changed")
        return list(method.read(takewhile(lambda _: not left.is_set(), rows_of(data)), renderer))

    try:
        return reports.aside(read)
    except DataError as error:
        error.message = f"file {file.id}, {error}"
        raise


def _resumed(records: Records, engine: EngineThread, kind: type[C], make: Callable[[C | None], Work]) -> Work:
    """The work at its newest checkpoint that is whole and its own; from the beginning if there is none."""
    complaints = []
    work = None
    for ref in records.attempt.checkpoints:
        try:
            work = _at(records, engine, ref, kind, make)
            break
        except (CorruptArtifact, NotFound, UserError) as error:
            complaints.append(f"the checkpoint of step {ref.step} cannot be used: {error}")
    if work is None:
        work = make(None)
    if complaints:
        step = 0 if work.resume is None else work.resume.step
        message = f"Resuming from step {step}: {'; '.join(complaints)}"
        records.write(lambda session: jobs.began_at(session, records.attempt, step, message))
    return work


def _at(
    records: Records, engine: EngineThread, ref: CheckpointRef, kind: type[C], make: Callable[[C | None], Work]
) -> Work:
    checkpoint = kind.from_bytes(records.fetch(ref.object_key), ref.sha256)
    work = make(checkpoint)
    if checkpoint.identity != work.identity(engine.engine.runtime.basis):
        raise CorruptArtifact("it belongs to another spec, dataset or basis")
    return work
