"""Pickles, which run code when they are opened, by every way that bytes come in."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.context import Registry
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.support.archives import CONFIG, WEIGHTS, archive

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SETTINGS = b'{"peft_type": "LORA", "r": 2}'


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return ",".join(inference)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "trapped"


@pytest.fixture
def pickled(trap: Path) -> bytes:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trap,)

    return pickle.dumps(Trap())


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def test_none_is_taken_and_none_is_opened(
    client: httpx.Client, registry: Registry, fake: FakeInference, pickled: bytes, trap: Path
) -> None:
    as_torch_saves = zipped(**{"archive/data.pkl": pickled, "archive/version": b"3\n"})
    row = json.dumps({"prompt": "a", "completion": "b"}).encode() + b"\n"
    for content in (pickled, as_torch_saves, row + pickled):
        for name in ("train.jsonl", "train.pkl", "train.parquet", "train.csv"):
            sent = {"data": {"purpose": "fine-tune"}, "files": {"file": (name, content)}}
            error_of(client.post("/files", **sent), 400)
        upload = {"filename": "train.jsonl", "purpose": "fine-tune", "bytes": len(content), "mime_type": "text/jsonl"}
        upload_id = client.post("/uploads", json=upload).json()["id"]
        part = client.post(f"/uploads/{upload_id}/parts", files={"data": content}).json()["id"]
        error_of(client.post(f"/uploads/{upload_id}/complete", json={"part_ids": [part]}), 400)
    for content in (
        pickled,
        as_torch_saves,
        archive({CONFIG: SETTINGS, WEIGHTS: pickled}),
        archive({CONFIG: SETTINGS, "adapter_model.bin": pickled}),
        archive({CONFIG: pickled, WEIGHTS: b""}),
        archive({CONFIG: SETTINGS, WEIGHTS: as_torch_saves}),
    ):
        error_of(client.post("/adapters", files={"file": ("adapter.zip", content)}), 400)
    assert fake.asked == []
    assert client.get("/files").json()["data"] == client.get("/adapters").json()["data"] == []
    assert not trap.exists()
    pickle.loads(pickled)
    assert trap.exists()
