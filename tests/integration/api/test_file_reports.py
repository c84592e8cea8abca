"""GET /files/{id}/report."""

import itertools
import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from registry import measures
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference, measured

ROWS = [{"prompt": f"ask {number // 2}", "completion": f"answer {number // 2}"} for number in range(12)]


@pytest.fixture
def fake(inference: dict[str, FakeInference]) -> Iterator[FakeInference]:
    first = next(iter(inference.values()))
    sample = {"line": 1, "segments": [{"text": "ask 1", "trained": False}, {"text": "\0 é", "trained": True}]}
    first.measure = measured(12, samples=[sample])
    yield first
    first.may_measure.set()


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


def upload(client: httpx.Client, rows: list[dict[str, str]] = ROWS, name: str = "rows.jsonl") -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    response = client.post("/files", data={"purpose": "fine-tune"}, files={"file": (name, text)})
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def test_the_whole_report(client: httpx.Client, fake: FakeInference) -> None:
    assert fake.measure is not None
    file_id = upload(client)
    for prefix in ("", "/v1"):
        response = client.get(f"{prefix}/files/{file_id}/report")
        assert response.status_code == 200, response.text
        report = response.json()
        (warning,) = report.pop("warnings")
        tokens = report.pop("tokens")["osora-tiny"]
        assert report == {
            "object": "file.report",
            "file_id": file_id,
            "container": "jsonl",
            "format": "completion",
            "rows": 12,
            "bytes": sum(len(json.dumps(row)) + 1 for row in ROWS),
            "notes": [],
        }
        assert (warning["code"], warning["count"], warning["lines"]) == ("duplicate_rows", 6, [2, 4, 6, 8, 10])
        assert tokens.pop("samples") == [{**fake.measure["samples"][0], "rejected": None}]
        assert tokens == {key: fake.measure[key] for key in tokens}
        assert tokens.keys() >= {"limit", "rows", "rows_over", "over", "tokens", "trained_tokens", "histogram"}
    assert len(fake.asked) == 1, "it was measured when it was uploaded"


def test_tokens_are_not_there_yet(client: httpx.Client, fake: FakeInference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.files.measuring.measured.__kwdefaults__", {"limit": None, "seconds": 0.05})
    fake.may_measure.clear()
    file_id = upload(client)
    report = client.get(f"/files/{file_id}/report").json()
    assert "ask again" in report["tokens"]["osora-tiny"]["unavailable"]
    assert report["warnings"][0]["code"] == "duplicate_rows"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_is_not_measured_twice_where_a_measure_ends_after_it_was_looked_for(
    client: httpx.Client, fake: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = upload(client)
    assert "rows" in client.get(f"/files/{file_id}/report").json()["tokens"]["osora-tiny"]
    find, looks = measures.find, itertools.count()
    monkeypatch.setattr(measures, "find", lambda *args, **kwargs: find(*args, **kwargs) if next(looks) else None)
    assert "rows" in client.get(f"/files/{file_id}/report").json()["tokens"]["osora-tiny"]
    assert len(fake.asked) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_nobody_measures(client: httpx.Client, fake: FakeInference) -> None:
    fake.measure = None
    report = client.get(f"/files/{upload(client)}/report").json()
    assert report["tokens"] == {"osora-tiny": {"unavailable": "it measures nothing"}}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_cannot_be_asked_for(
    client: httpx.Client,
    client_with: Callable[..., httpx.Client],
    fake: FakeInference,
) -> None:
    file_id = upload(client)
    assert error_of(client.get(f"/files/{file_id}/report?base=no"), 400)["param"] == "base"
    assert error_of(client.get(f"/files/{file_id}/report?bas=no"), 400)["param"] == "bas"
    assert error_of(client.get("/files/file-no/report"), 404)["code"] == "file_not_found"
    stranger = client_with("read", tenant="other")
    assert error_of(stranger.get(f"/files/{file_id}/report"), 404)["code"] == "file_not_found"


def test_a_job_is_told_of_rows_that_both_its_files_have(client: httpx.Client, fake: FakeInference) -> None:
    train, valid = upload(client), upload(client, [*ROWS[:1], {"prompt": "new", "completion": "too"}])
    job = client.post("/jobs", json={"model": "osora-tiny", "training_file": train, "validation_file": valid}).json()
    events = client.get(f"/jobs/{job['id']}/events").json()["data"]
    (told,) = [event for event in events if event["level"] == "warn"]
    assert told["message"].startswith("1 of the 2 rows of the validation file are in the training file too")
    other = upload(client, [{"prompt": "new", "completion": "too"}])
    job = client.post("/jobs", json={"model": "osora-tiny", "training_file": train, "validation_file": other}).json()
    events = client.get(f"/jobs/{job['id']}/events").json()["data"]
    assert [event["level"] for event in events] == ["info", "info"]
