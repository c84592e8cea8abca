"""What an attempt leaves: events, checkpoints that can be called, the adapter."""

import hashlib
import io
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from osora_core.adapter import Adapter as Artifact
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint
from registry import adapters, files, jobs
from registry.context import Registry
from registry.models import Adapter, Job, JobEvent
from registry.references import refer
from registry.tenants import Principal
from tests.integration.worker.conftest import BASE, RANK
from tests.support.inference import run
from tests.support.jobs import claim, read, submit
from worker.attempt import run_attempt
from worker.reports import Reports
from worker.threads import EngineThread

Train = Callable[..., Job]
Upload = Callable[..., str]
Events = Callable[[Job], list[JobEvent]]
PROMPT = "help 1"


def say(runtime: Runtime, artifact: Artifact, prompt: str, tokens: int) -> str:
    text = runtime.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = tuple(runtime.tokenizer(text, add_special_tokens=False)["input_ids"])
    row = AdapterRow("a", artifact.to_row(runtime.basis), artifact.rank)
    request = Request("r", ids, SamplingParams(max_tokens=tokens), adapter=row)
    return run(InferenceEngine(runtime, rows=1, adapters=1), [request])["r"].text


def artifact_of(registry: Registry, principal: Principal, name: str) -> Artifact:
    with registry.reading() as session:
        ref = refer(session, principal, name)
    return Artifact.from_zip(registry.store.get(ref.object_key), ref.sha256)


def test_samples_are_events_of_the_job_and_nowhere_else(
    train: Train,
    upload: Upload,
    events: Events,
    registry: Registry,
    principal: Principal,
    runtime: Runtime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    job = train(training_file=upload("order"), osora={"sample_prompts": [PROMPT, "what?"], "sample_tokens": 4})
    assert job.status == "succeeded", job.error
    told = [event for event in events(job) if event.data and "prompt" in event.data]
    assert [(event.type, event.data["step"], event.data["prompt"]) for event in told if event.data] == [
        ("message", step, prompt) for step in (0, 3, 6) for prompt in (PROMPT, "what?")
    ]
    assert job.adapter_id is not None
    last = told[-2].data
    assert last is not None
    assert last["text"] == say(runtime, artifact_of(registry, principal, job.adapter_id), PROMPT, 4)
    assert all(last["text"] not in event.message and PROMPT not in event.message for event in told)
    assert PROMPT not in caplog.text
    assert last["text"]
    assert last["text"] not in caplog.text


def test_every_epochs_checkpoint_is_an_adapter_of_its_own(
    train: Train, upload: Upload, registry: Registry, principal: Principal
) -> None:
    job = train(3, training_file=upload("order"), validation_file=upload("order", 3), osora={"keep": "last"})
    with registry.reading() as session:
        rows = list(jobs.checkpoints(session, principal, job.id, order="asc").data)
        adapter = adapters.get(session, principal, str(job.adapter_id))
    assert [(row.step, row.ends_epoch, row.object_key is None) for row in rows] == [
        (3, True, True), (6, True, False), (9, True, False),
    ]  # fmt: skip
    for row in rows:
        assert {"train_loss", "valid_loss", "valid_exact_match", "full_valid_loss"} <= row.metrics.keys()
    losses = [row.metrics["full_valid_loss"] for row in rows]
    assert len(set(losses)) == 3
    rows_of = [artifact_of(registry, principal, row.id) for row in rows]
    last = artifact_of(registry, principal, str(job.adapter_id))
    assert adapter.step == 9
    assert rows_of[-1].files()["adapter_model.safetensors"] == last.files()["adapter_model.safetensors"]
    assert rows_of[0].files()["adapter_model.safetensors"] != last.files()["adapter_model.safetensors"]
    folder = f"checkpoints/{job.id}"
    named = {key for row in rows for key in (row.object_key, row.adapter_key) if key is not None}
    assert {found.key for found in registry.store.list(folder)} == named


def test_a_checkpoint_within_an_epoch_has_no_validation_figures_of_another_state(
    upload: Upload, registry: Registry, principal: Principal, engine: EngineThread
) -> None:
    class EveryReport(Reports):
        def checkpoint(self, checkpoint: Checkpoint) -> None:  # none takes the place of one that waits
            self._add(checkpoint)

    wanted = {"hyperparameters": {"n_epochs": 2, "batch_size": 4}, "osora": {"rank": RANK, "checkpoint_steps": 2}}
    files = {"training_file": upload("order"), "validation_file": upload("order", 3)}
    job = submit(registry, principal, base=BASE, **files, **wanted)
    run_attempt(registry, engine, claim(registry, job), EveryReport())
    with registry.reading() as session:
        rows = list(jobs.checkpoints(session, principal, job.id, order="asc").data)
    validated = {row.step: "valid_loss" in row.metrics for row in rows}
    assert validated == {3: True, 5: False, 6: True}
    assert all("train_loss" in row.metrics for row in rows)


def test_a_job_that_overfits_stops_and_keeps_its_best_state(
    train: Train, upload: Upload, events: Events, registry: Registry, principal: Principal
) -> None:
    """It learns one answer and is measured on another: the first epoch is the best."""
    osora = {"early_stopping_patience": 2, "learning_rate": 0.3}
    job = train(20, training_file=upload("order"), validation_file=upload("please wait", 3), osora=osora)
    assert job.status == "succeeded", job.error
    assert (job.total_steps, job.step < 60) == (60, True)
    messages = [event.message for event in events(job)]
    assert f"Stopped after step {job.step} of 60: the validation loss has not fallen for 2 epochs" in messages
    best = job.step - 2 * 3
    assert any(message.startswith(f"Keeping the state of step {best}: ") for message in messages)
    with registry.reading() as session:
        assert adapters.get(session, principal, str(job.adapter_id)).step == best
        ref = refer(session, principal, f"ftckpt_{job.id[-16:]}_{best}")
    (created,) = (event.data for event in events(job) if event.message.startswith("New fine-tuned model created"))
    told = [event.data for event in events(job) if event.type == "metrics" and event.data]
    losses = {data["step"]: data["valid_loss"] for data in told if "valid_loss" in data}
    assert created is not None
    assert (created["adapter_step"], created["valid_loss"]) == (best, losses[best])  # not the last state's
    kept = artifact_of(registry, principal, ref.name).files()["adapter_model.safetensors"]
    assert artifact_of(registry, principal, str(job.adapter_id)).files()["adapter_model.safetensors"] == kept


def test_what_was_uploaded_as_one_line_is_trained_as_one(
    train: Train, registry: Registry, principal: Principal
) -> None:
    """Between two keys a CR is white space, and in a text U+2028 is a character; neither ends a line."""
    rows = (f'{{"prompt": "help\u2028{i}\x85",\r"completion": "order"}}\r\n' for i in range(8))
    file = files.ingest(registry, principal, io.BytesIO("".join(rows).encode()), "rows.jsonl", "fine-tune")
    job = train(1, training_file=file.id)
    assert (job.status, file.rows, job.total_steps) == ("succeeded", 8, 2), job.error


def test_a_sample_prompt_that_is_too_long_is_the_users_fault(train: Train, upload: Upload) -> None:
    job = train(training_file=upload("order"), osora={"sample_prompts": ["ok", "word " * 200]})
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["fault"], job.error["param"]) == ("user", "osora.sample_prompts[1]")
    assert "tokens long" in job.error["message"]


def loss_at_start(events: list[JobEvent]) -> float:
    data = next(event.data for event in events if event.type == "metrics" and (event.data or {}).get("step") == 0)
    assert data is not None
    return float(data["valid_loss"])


def test_a_job_goes_on_from_an_adapter_and_from_a_checkpoint(
    train: Train, upload: Upload, events: Events, registry: Registry, principal: Principal
) -> None:
    file, valid = upload("order"), upload("order", 3)
    first = train(2, training_file=file, validation_file=valid)
    with registry.reading() as session:
        early, late = jobs.checkpoints(session, principal, first.id, order="asc").data
        adapter = adapters.get(session, principal, str(first.adapter_id))
    for name, loss in ((adapter.name, late.metrics["valid_loss"]), (early.id, early.metrics["valid_loss"])):
        job = train(1, training_file=file, validation_file=valid, from_adapter=name)
        assert job.status == "succeeded", job.error
        assert loss_at_start(events(job)) == pytest.approx(loss, rel=1e-6)
        assert any("from an adapter" in event.message for event in events(job))


def test_an_adapter_that_is_gone_or_of_another_base_is_the_users_fault(
    train: Train, upload: Upload, registry: Registry, principal: Principal, engine: EngineThread
) -> None:
    file = upload("order")
    adapter_id = str(train(1, training_file=file).adapter_id)
    gone = submit(registry, principal, base=BASE, training_file=file, from_adapter=adapter_id)
    changed = submit(registry, principal, base=BASE, training_file=file, from_adapter=adapter_id)
    with registry.reading() as session:
        ref = refer(session, principal, adapter_id)
    made_elsewhere = replace(artifact_of(registry, principal, adapter_id), base_fingerprint="f" * 64).to_zip()
    registry.store.put(ref.object_key, made_elsewhere)
    with registry.transaction() as session:
        session.get_one(Adapter, adapter_id).sha256 = hashlib.sha256(made_elsewhere).hexdigest()
    run_attempt(registry, engine, claim(registry, changed), Reports())
    with registry.transaction() as session:
        adapters.remove(session, None, [adapter_id])
    run_attempt(registry, engine, claim(registry, gone), Reports())
    for job, words in ((gone, "has been deleted"), (changed, "f" * 64)):
        error = read(registry, principal, job).error
        assert error is not None
        assert (error["fault"], error["param"]) == ("user", "osora.from_adapter")
        assert adapter_id in error["message"]
        assert words in error["message"]
