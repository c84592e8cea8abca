"""An inference server is killed: what it had ended is charged once, what it was at is charged to nobody."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.faults.world import BASE
from tests.support.ports import free_port

TOKEN = "internal-token-of-the-tests"


@contextmanager
def inference(folder: Path, base: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server process that is killed at the end, and a client of it."""
    port = free_port()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OSORA_")},
        "OSORA_DATA_DIR": str(folder),
        "OSORA_BASES": f"{BASE}={base}",
        "OSORA_BASIS_RANK": "8",
        "OSORA_INTERNAL_TOKEN": TOKEN,
        "OSORA_INFERENCE_PORT": str(port),
        "OSORA_INFERENCE_ROWS": "2",
    }
    headers = {"authorization": f"Bearer {TOKEN}"}
    process = subprocess.Popen([sys.executable, "-m", "inference"], env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process, httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        try:
            assert "ready\n" in process.stderr
            yield process, client
        finally:
            process.kill()


def body(name: str, **fields: Any) -> dict[str, Any]:
    return {"request_id": name, "tenant": "tenant-1", "key": "key-1", "base": BASE, "prompt": "help me", **fields}


def take(client: httpx.Client, **acknowledged: int) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/usage/take", json={"acknowledged": acknowledged}).json()
    return answer


def test_killed_before_anybody_fetched_what_it_had_recorded(tmp_path: Path, base: Path) -> None:
    with inference(tmp_path, base) as (process, client):
        used = client.post("/generate", json=body("gen-ended", max_tokens=4)).json()["usage"]
        many = body("gen-cut", prompt=["help me"] * 100, max_tokens=100, stream=True)  # seconds of work for two rows
        with client.stream("POST", "/generate", json=many) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.kill()
            process.wait(60)
    with inference(tmp_path, base) as (_, client):
        found = take(client)
        (record,) = found["records"]
        assert (record["id"], record["number"]) == ("gen-ended", 1)
        assert all(record[name] == used[name] for name in ("prompt_tokens", "completion_tokens"))
        # Killed once more, before or after the acknowledgement: it comes again under the same number, or no more.
    with inference(tmp_path, base) as (_, client):
        assert take(client) == found
        acknowledged = take(client, **{found["segment"]: 1})
        assert acknowledged == {"gone": [found["segment"]], "segment": None, "records": []}
    assert not list((tmp_path / "usage").iterdir())
