"""A job on preferences, from its rows to what its tenant sees of it."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from osora_core.data import Row
from osora_core.training import TrainingJob
from osora_core.training.throughput import Throughput
from registry import files, jobs
from registry.context import Registry
from registry.errors import InvalidRequest
from registry.models import Job
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.worker.conftest import BASE
from tests.support.places import a_place
from worker.attempt import run_attempt
from worker.reports import Reports
from worker.threads import EngineThread


def lines(rows: int) -> bytes:
    pairs = (
        {
            "input": {"messages": [{"role": "user", "content": f"help {i}"}]},
            "preferred_output": [{"role": "assistant", "content": "order"}],
            "non_preferred_output": [{"role": "assistant", "content": "refund"}],
        }
        for i in range(rows)
    )
    return "".join(json.dumps(pair) + "\n" for pair in pairs).encode()


@pytest.fixture
def preferences(registry: Registry, principal: Principal) -> str:
    return files.ingest(registry, principal, io.BytesIO(lines(12)), "rows.jsonl", "fine-tune").id


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A worker of two jobs, and an API whose broker is not there."""
    return settings.model_copy(update={"worker_jobs": 2, "broker_url": "redis://127.0.0.1:9/0", "port": 0})


@pytest.fixture
def train_by_api(client: httpx.Client, registry: Registry, engine: EngineThread) -> Callable[..., dict[str, Any]]:
    """Has the API take files and a job, runs its attempt, and returns the job as the API then shows it."""

    def upload(rows: int) -> str:
        files = {"file": ("pairs.jsonl", lines(rows))}
        return str(client.post("/files", data={"purpose": "fine-tune"}, files=files).raise_for_status().json()["id"])

    def run(osora: dict[str, Any], rows: int = 12, valid: int = 0) -> dict[str, Any]:
        hyperparameters = {"n_epochs": 3, "batch_size": 4, "beta": 0.2}
        body = {
            "model": BASE,
            "seed": 1,
            "training_file": upload(rows),
            "method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
            "osora": {"rank": 8, **osora},
        }
        if valid:
            body["validation_file"] = upload(valid)
        job_id = client.post("/jobs", json=body).raise_for_status().json()["id"]
        with registry.transaction() as session:
            attempt = jobs.claim(session, job_id, "worker-1", lease_seconds=60, alone=True)
        assert attempt is not None
        run_attempt(registry, engine, attempt, Reports(), a_place())
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").raise_for_status().json()
        assert job["status"] == "succeeded", job["error"]
        return job

    return run


@pytest.mark.parametrize(
    ("valid", "chosen_by"), [(0, "1 training rows that none of them trains on"), (5, "5 validation rows")]
)
def test_a_sweep_on_preferences_tells_the_rate_that_it_took_and_all_curves(
    client: httpx.Client, train_by_api: Callable[..., dict[str, Any]], valid: int, chosen_by: str
) -> None:
    job = train_by_api({"learning_rate": [1e-6, 0.03]}, valid=valid)
    assert job["osora"]["resolved"]["learning_rate"] == 0.03
    assert job["osora"]["resolved"]["method"] == "dpo"
    told = {"n_epochs": 3, "batch_size": 4, "beta": 0.2, "learning_rate_multiplier": 1.0}
    assert job["method"] == {"type": "dpo", "dpo": {"hyperparameters": told}}
    events = client.get(f"/jobs/{job['id']}/events", params={"limit": 100}).json()["data"]
    said = [event["message"] for event in events]
    assert any("a sweep of 2 rates" in words and chosen_by in words for words in said)
    assert any("first learning rate 0.03 with 2 times that for s (loss 0." in words for words in said)
    assert any(words.startswith("The sweep chose learning rate 0.03") for words in said)
    curve, family = (
        list(csv.DictReader(io.StringIO(client.get(f"/files/{file_id}/content").text)))
        for file_id in job["result_files"]
    )
    assert {(line["learning_rate"], line["outcome"]) for line in family if line["outcome"]} == {
        ("1e-06", "discarded"),
        ("0.03", "chosen"),
    }
    best = [line["train_loss"] for line in family if line["learning_rate"] == "0.03" and line["train_loss"]]
    assert best == [line["train_loss"] for line in curve if line["train_loss"]]
    assert 0 < float(best[-1]) < 0.6931


@pytest.mark.parametrize(("a_copy_more", "sweeps"), [(0.0, True), (1.0, False)])
def test_auto_goes_by_what_a_sweep_on_preferences_costs(
    client: httpx.Client,
    train_by_api: Callable[..., dict[str, Any]],
    engine: EngineThread,
    monkeypatch: pytest.MonkeyPatch,
    a_copy_more: float,
    sweeps: bool,
) -> None:
    """On a device whose time is given: on an idle one a further copy costs nothing, on a busy one as much as the first.
    The passes that are timed are run all the same."""
    timed = Throughput._timed

    def given(throughput: Throughput, job: TrainingJob, batch: Sequence[Row], copies: int) -> float:
        assert timed(throughput, job, batch, copies) > 0
        return 1 + a_copy_more * (copies - 1)

    monkeypatch.setattr(Throughput, "_timed", given)
    monkeypatch.setattr(engine.engine.throughput, "_full", 10**6)
    job = train_by_api({"learning_rate": "auto"}, rows=200, valid=20)
    events = client.get(f"/jobs/{job['id']}/events", params={"limit": 100}).json()["data"]
    (auto,) = (event["data"]["auto"] for event in events if "auto" in event["data"])
    assert (auto["sweep"], auto["cost"] <= auto["limit"]) == (sweeps, sweeps)
    assert len(job["result_files"]) == (2 if sweeps else 1)
    reason = "a sweep of 2 takes" if sweeps else "the default, as a sweep of 2 would take about"
    said = [event["message"] for event in events]
    (measuring,) = (
        words for words in said if words.startswith("Measuring what a sweep of 2 learning rates would take")
    )
    (decided,) = (words for words in said if reason in words)
    assert said.index(measuring) > said.index(decided)  # the newest comes first


@pytest.mark.parametrize(("method", "fitting"), [("dpo", "supervised"), ("supervised", "dpo")])
def test_rows_that_the_method_cannot_learn_from_are_refused_at_once(
    train: Callable[..., Job], upload: Callable[..., str], preferences: str, method: str, fitting: str
) -> None:
    rows = preferences if method == "supervised" else upload("order")
    with pytest.raises(InvalidRequest, match="which the method") as refused:
        train(method=method, training_file=rows)
    assert refused.value.param == "training_file"
    assert f"use the method {fitting!r}" in str(refused.value.next_action)
