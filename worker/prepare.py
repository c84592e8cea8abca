"""From a claimed job to what the engine trains: rendered rows, spec, and the newest checkpoint that is whole."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from osora_core.data import Row
from osora_core.errors import CorruptArtifact, UserError
from osora_core.training import Checkpoint, JobSpec, Sweep, SweepCheckpoint, TrainingJob
from registry import jobs
from registry.errors import NotFound
from registry.jobs import CheckpointRef, Remark
from worker.begun_with import fetch_start
from worker.dataset import read_dataset, renderer_of
from worker.hyperparameters import plan_of
from worker.prompts import sample_prompts
from worker.reading import Turns
from worker.records import Records
from worker.remarks import announcement
from worker.reports import Reports
from worker.sweeps import Decision, Rows, decide
from worker.threads import EngineThread
from worker.work import SingleJob, Work

C = TypeVar("C", bound=Checkpoint)

# As registry.jobs.turns counts running jobs: one of high priority is half as heavy, so it gets twice the share.
_WEIGHTS = {"high": 2.0, "normal": 1.0, "low": 0.5}


def prepare(records: Records, engine: EngineThread, reports: Reports, turns: Turns) -> Work:
    """What the attempt trains, not yet in the engine. The job's first attempt decides its plan here, and records it.

    Raises UserError for what only the tenant can mend, CorruptArtifact for stored bytes that have changed.
    """
    attempt, runtime = records.attempt, engine.engine.runtime
    renderer = renderer_of(attempt, runtime)
    dataset = read_dataset(records, renderer, reports, turns)
    train, valid = dataset.train, dataset.valid
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
                stop_after=attempt.probe_steps,
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
        plan = plan_of(specs, dataset.counts(len(rows.train)), attempt.points)
        said = Remark(announcement(job(first, rows.train), decision, rows), data=decision.to_event())
        records.write(lambda session: jobs.record_plan(session, attempt, plan, [*dataset.remarks(), said]))
    if attempt.probe_steps is not None:
        return SingleJob(job(_unmeasured(first), rows.train))
    if not others:
        return _resumed(records, engine, Checkpoint, lambda resume: SingleJob(job(first, rows.train, resume)))
    return _resumed(
        records,
        engine,
        SweepCheckpoint,
        lambda resume: Sweep(job(first, rows.train), specs, rows.choice, reports, resume),
    )


def _unmeasured(spec: JobSpec) -> JobSpec:
    """A spec whose steps are the same, without all that is done between them."""
    return replace(spec, evaluate="never", keep="last", early_stopping_patience=None)


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
