"""The dial through the real service: what a preset promises is what is trained, stored and called."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import BASE, Service, dataset

QUESTION = [{"role": "user", "content": "Which city?"}]


def body(service: Service, path: Path, osora: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": BASE,
        "training_file": service.sdk.files.upload(path)["id"],
        "seed": 3,
        "hyperparameters": {"n_epochs": 8, "batch_size": 8},
        "osora": osora,
    }


def finished(service: Service, client: httpx.Client, asked: dict[str, Any]) -> dict[str, Any]:
    made = client.post("/jobs", json=asked)
    assert made.status_code == 200, made.text
    for _ in service.sdk.jobs.events(made.json()["id"]):
        pass
    job: dict[str, Any] = client.get(f"/jobs/{made.json()['id']}").json()
    assert job["status"] == "succeeded", job
    return job


@pytest.mark.parametrize("presets", ["balanced", ["small", "balanced"]])
def test_a_preset_from_its_promise_to_its_answer(service: Service, tmp_path: Path, presets: str | list[str]) -> None:
    """Values and bytes are told before; the adapter has them, alone or as the best of a sweep, and answers."""
    headers = {"authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=180) as client:
        (base,) = client.get("/bases").json()["data"]
        promised = {(p["rank"], p["mix"]): p for p in base["presets"]}
        assert [p["parameters"] for p in base["presets"]][:2] == [26_624, 40_960]  # as docs/training.md says
        asked = body(service, dataset(tmp_path / "lima.jsonl", "Lima"), {"preset": presets})
        told = client.post("/jobs?dry_run=true", json=asked).json()
        listed = presets if isinstance(presets, list) else [presets]
        assert [point["preset"] for point in told["points"]] == listed
        job = finished(service, client, asked)
        assert [point["preset"] for point in job["osora"]["points"]] == listed
        resolved = job["osora"]["resolved"]
        adapter = client.get(f"/adapters/{job['osora']['adapter_id']}").json()
        point = promised[adapter["rank"], adapter["mix"]]
        assert (resolved["rank"], resolved["mix"]) == (adapter["rank"], adapter["mix"])
        assert point["preset"] in listed
        assert adapter["parameters"] == point["parameters"]
        assert told["adapter_bytes"] >= point["adapter_bytes"] == 4 * adapter["parameters"]
        answer = service.sdk.generate(QUESTION, adapter=job["fine_tuned_model"], max_tokens=8)
        assert answer["text"] == "Lima"


def test_an_adapter_with_a_mix_is_gone_on_from(service: Service, tmp_path: Path) -> None:
    headers = {"authorization": f"Bearer {service.key}"}
    path = dataset(tmp_path / "cairo.jsonl", "Cairo")
    with httpx.Client(base_url=service.url, headers=headers, timeout=180) as client:
        first = finished(service, client, body(service, path, {"mix": 4, "rank": 32}))
        asked = {**body(service, path, {"mix": 8}), "model": first["fine_tuned_model"]}
        second = finished(service, client, asked)
        assert second["osora"]["points"] == [{"preset": None, "rank": 32, "mix": 8}]
        answer = service.sdk.generate(QUESTION, adapter=second["fine_tuned_model"], max_tokens=8)
        assert answer["text"] == "Cairo"
