import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app

from ..conftest import Answer, FakeService

FORECAST: dict[str, Any] = {
    "object": "fine_tuning.job.dry_run",
    "model": "osora-tiny",
    "method": {"type": "supervised"},
    "hyperparameters": {"n_epochs": 3, "batch_size": 4},
    "osora": {"learning_rate": 0.03, "overlong": "drop"},
    "rows": {"training": 1200, "validation": 60, "dropped": 2, "truncated": 0},
    "tokens": {"training": 50_000, "trained": 20_000, "validation": 900},
    "steps": 900,
    "queue_position": 2,
    "estimated_start": None,
    "estimated_finish": None,
    "estimated_seconds": 125.0,
    "adapter_bytes": 2048,
    "warnings": [
        {"message": "osora.validation_share holds out few rows", "next_action": "raise osora.validation_share"},
        "said in one sentence",
    ],
    "probe": None,
}


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def data(service: FakeService, tmp_path: Path) -> Path:
    service.on("GET", "/bases", Answer(body={"data": [{"name": "osora-tiny"}]}))
    service.on("GET", "/files", Answer(body={"data": []}))
    service.on("POST", "/files", Answer(body={"id": "file-1"}))
    service.on("DELETE", "/files/file-1", Answer(body={}))
    service.on("POST", "/jobs", Answer(body=FORECAST))
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    return path


def test_a_dry_run_shows_what_it_would_take_and_leaves_nothing(service: FakeService, data: Path) -> None:
    options = ["--overlong", "drop", "--validation-share", "0.05"]
    result = osora("train", str(data), "--dry-run", *options)
    assert result.exit_code == 0
    for line in (
        "rows           1,200 to train on, 60 to validate on",
        "too long       2 dropped",
        "tokens         50,000 in an epoch, of which 20,000 are learned",
        "steps          900",
        "jobs ahead     2",
        "it would take  2 min 05 s",
        "adapter        2.0 KiB",
        "Warning: --validation-share holds out few rows. Next: raise --validation-share.",
        "Warning: said in one sentence",
    ):
        assert line in result.output.splitlines()
    made = next(request for request in service.requests if request.path == "/jobs")
    assert "dry_run=true" in made.query
    assert made.json["osora"] == {"overlong": "drop", "validation_share": 0.05}
    assert service.requests[-1].method == "DELETE"
    assert json.loads(osora("train", str(data), "--dry-run", "--json").stdout) == FORECAST


def test_a_probe_shows_the_losses_that_it_had(service: FakeService, data: Path) -> None:
    probe = {"steps": 3, "train_loss": [3.5, 2.0, 1.25], "seconds": 4.2, "tokens_per_second": 1500.0}
    service.on("POST", "/jobs", Answer(body={**FORECAST, "probe": probe, "estimated_seconds": None}))
    output = osora("train", str(data), "--dry-run", "--probe", "3").output
    assert "3 real steps, now thrown away: 4 s, 1,500 tokens/s" in output
    assert "training loss 3.500 -> 1.250" in output
    assert "not known yet" in output
    assert "probe=3" in next(request.query for request in service.requests if request.path == "/jobs")
    refused = osora("train", str(data), "--probe", "3")
    assert (refused.exit_code, "--dry-run" in refused.stderr) == (2, True)
