"""What is said of a file before it is trained on is what comes of it."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from osora.errors import OsoraAPIError
from osora.sdk import Osora
from tests.acceptance.conftest import BASE, Service

LENGTHS = [1, 3, 9, 27, 2, 6, 18, 54]


def written(path: Path, lengths: list[int]) -> Path:
    """Rows of two turns, with so many words asked; the first answer of each second row is not learned."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": "please " * length},
                {"role": "assistant", "content": f"number {index}", "weight": index % 2},
                {"role": "user", "content": "and?"},
                {"role": "assistant", "content": "So it is."},
            ]
        }
        for index, length in enumerate(lengths)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measured(service: Service, file_id: str) -> dict[str, Any]:
    """The report, once the tokens are counted: each request waits for that, on a busy machine not long enough."""
    headers = {"authorization": f"Bearer {service.key}"}
    while True:
        response = httpx.get(f"{service.url}/files/{file_id}/report", headers=headers, timeout=60)
        report: dict[str, Any] = response.raise_for_status().json()
        if "unavailable" not in report["tokens"][BASE]:
            return report
        assert "ask again" in report["tokens"][BASE]["unavailable"]


def test_tokens_that_are_told_are_those_that_are_trained(service: Service, tmp_path: Path) -> None:
    epochs = 2
    with Osora(service.url, service.key) as osora:
        file = osora.files.upload(written(tmp_path / "rows.jsonl", LENGTHS))
        report = measured(service, file["id"])
        tokens = report["tokens"][BASE]
        assert (tokens["rows"], tokens["counted"], tokens["rows_over"]) == (len(LENGTHS), len(LENGTHS), 0)
        assert report["warnings"][0]["code"] == "few_rows"
        job = osora.jobs.create(BASE, file["id"], hyperparameters={"n_epochs": epochs, "batch_size": 4})
        for _ in osora.jobs.events(job["id"]):
            pass
        done = osora.jobs.get(job["id"])
    assert done["status"] == "succeeded", done["error"]
    # OpenAI's word for all that is read of the rows.
    assert done["trained_tokens"] == epochs * tokens["tokens"]


def test_rows_that_are_too_long_are_told_before_there_is_a_job(service: Service, tmp_path: Path) -> None:
    with Osora(service.url, service.key) as osora:
        file = osora.files.upload(written(tmp_path / "rows.jsonl", [1, 3000, 2, 4000]))
        assert measured(service, file["id"])["tokens"][BASE]["rows_over"] == 2
        before = [job["id"] for job in osora.jobs.list()]
        with pytest.raises(OsoraAPIError) as refused:
            osora.jobs.create(BASE, file["id"])
        assert [job["id"] for job in osora.jobs.list()] == before
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "training_file", "rows_too_long")
    assert "2 rows" in refused.value.message
    assert "line 2 has" in refused.value.message
    assert "line 4 has" in refused.value.message
