"""A dry run with a probe through the real service, then the job itself: the same settings and the same first losses."""

import csv
import io
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Service, dataset
from tests.acceptance.test_file_reports import measured

STEPS = 8


def test_a_job_becomes_what_its_dry_run_told(service: Service, tmp_path: Path) -> None:
    sdk = service.sdk
    file = sdk.files.upload(dataset(tmp_path / "riga.jsonl", "Riga", rows=48))
    measured(service, file["id"])  # a dry run waits for the tokens, but on a busy machine not long enough
    before = [job["id"] for job in sdk.jobs.list()]
    body: dict[str, Any] = {
        "model": "osora-tiny",
        "training_file": file["id"],
        "seed": 11,
        "hyperparameters": {"n_epochs": 2},
        "osora": {"learning_rate": 0.02, "rank": 32, "validation_share": 0.25},
    }
    headers = {"authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=180) as client:
        answer = client.post(f"/jobs?dry_run=true&probe={STEPS}", json=body)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["probe"]["steps"] == STEPS, told["warnings"]
        assert told["queue_position"] == 0
        assert told["estimated_start"] is not None
        assert told["estimated_seconds"] > 0
        assert told["tokens"]["training"] > told["tokens"]["trained"] > 0
        assert [job["id"] for job in sdk.jobs.list()] == before

        job_id = client.post("/jobs", json=body).json()["id"]
        for _ in sdk.jobs.events(job_id):
            pass
        job = sdk.jobs.get(job_id)
        assert job["status"] == "succeeded", job
        assert job["osora"]["resolved"].items() <= told["osora"].items()
        assert job["hyperparameters"] == told["hyperparameters"]
        assert (job["osora"]["rows"], job["osora"]["total_steps"]) == (told["rows"], told["steps"])
        curve = client.get(f"/files/{job['result_files'][0]}/content").text
        losses = [float(row["train_loss"]) for row in csv.DictReader(io.StringIO(curve)) if row["train_loss"]]
        assert losses[:STEPS] == pytest.approx(told["probe"]["train_loss"], rel=1e-3)
        adapter = client.get(f"/adapters/{job['osora']['adapter_id']}").json()
        assert told["adapter_bytes"] == 4 * adapter["parameters"]
