"""What an attempt leaves in the object store, and the rows that name it: checkpoints, result files, the adapter."""

import hashlib
from dataclasses import replace
from typing import Any

from osora_core import canary
from osora_core.errors import CorruptArtifact
from osora_core.training import Checkpoint, JobSpec, Outcome, SweepOutcome, TrainingJob
from registry import jobs
from worker.artifacts import artifact, result_files
from worker.hyperparameters import plan_of
from worker.points import reached
from worker.records import Records
from worker.reports import evaluated_at
from worker.threads import EngineThread


def publish_checkpoint(
    records: Records,
    engine: EngineThread,
    job: TrainingJob,
    checkpoint: Checkpoint,
    metrics: dict[str, Any],
    *,
    patiently: bool,
) -> None:
    """Upload first, point to it after: the row never names an object that is not whole.

    `metrics` are those of training; those of validation are the checkpoint's own, if it was evaluated there.
    `patiently`: whether an outage of the object store is waited out; else it is raised.
    """
    data, attempt = checkpoint.to_bytes(), records.attempt
    key = f"checkpoints/{attempt.job_id}/{attempt.number}/{checkpoint.step}"
    # Of a sweep's best so far, whose rank and mix may be others than the first member's.
    of = replace(job, spec=JobSpec.from_dict(checkpoint.spec), same_rows_as=job)
    adapter = of.adapter(checkpoint.values, engine.engine.runtime)
    zipped, new = artifact(adapter, f"{key}.zip", checkpoint.step)

    def upload() -> None:
        reached("checkpoint_uploading", attempt.job_id)
        records.store.put(f"{key}.safetensors", data)
        records.store.put(new.object_key, zipped)

    if patiently:
        records.stored(upload)
    else:
        upload()
    reached("checkpoint_uploaded", attempt.job_id)
    superseded = records.write(
        lambda session: jobs.record_checkpoint(
            session,
            attempt,
            step=checkpoint.step,
            object_key=f"{key}.safetensors",
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            adapter=new,
            ends_epoch=checkpoint.ends_epoch,
            metrics=metrics | evaluated_at(checkpoint.curve, checkpoint.step),
        )
    )
    reached("checkpoint_recorded", attempt.job_id)
    for old in superseded:
        records.delete(old)


def publish_outcome(records: Records, engine: EngineThread, outcome: Outcome, metrics: dict[str, Any]) -> None:
    """Upload adapter and curve, read the adapter back, then publish both and end the job in one transaction.

    `metrics` are those of training at its end; those of validation are the adapter's own, whichever state it is.
    """
    attempt = records.attempt
    adapter = engine.call(lambda e: replace(outcome.adapter, canary=canary.compute(e.runtime, outcome.adapter)))
    folder = f"{attempt.job_id}/{attempt.number}"
    data, new = artifact(adapter, f"adapters/{folder}/adapter.zip", outcome.adapter_step)
    files = result_files(outcome, f"results/{folder}")

    def upload() -> bytes:
        reached("adapter_uploading", attempt.job_id)
        for content, file in files:
            records.store.put(file.object_key, content)
        records.store.put(new.object_key, data)
        return records.store.get(new.object_key)

    if records.stored(upload) != data:
        raise CorruptArtifact(f"the object store gave back other bytes than it was given for {new.object_key}")
    reached("adapter_uploaded", attempt.job_id)
    records.write(
        lambda session: jobs.complete(
            session,
            attempt,
            step=outcome.step,
            trained_tokens=outcome.trained_tokens,
            adapter=new,
            metrics=metrics | evaluated_at(outcome.curve, outcome.adapter_step),
            result_files=[file for _, file in files],
            plan=plan_of([outcome.spec], points=attempt.points) if isinstance(outcome, SweepOutcome) else None,
        )
    )
    reached("completed", attempt.job_id)
