"""POST /measure: by a process of its own, which the engine does not notice."""

import asyncio
import hashlib
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from inference.errors import ServerError
from inference.measuring import Measurer
from inference.schemas import MeasureRequest
from osora_common.scratch import Scratch
from osora_core.data import Renderer
from osora_core.runtime import Runtime
from tests.unit.inference.conftest import InferenceServer

LINES = [
    {"messages": [{"role": "user", "content": "help " * n}, {"role": "assistant", "content": "order"}]}
    for n in (1, 30, 2)
]
CONTENT = "".join(json.dumps(line) + "\n" for line in LINES).encode()


def asked(content: bytes = CONTENT, **changed: Any) -> dict[str, Any]:
    about = {"tenant": "t", "base": "tiny", "object_key": "files/rows", "rows": len(LINES), "bytes": len(content)}
    return {**about, "sha256": hashlib.sha256(content).hexdigest(), **changed}


class Store:
    """Gives the same bytes for any key; a key that begins with "slow" is held until `go`."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.fetched: list[str] = []
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, key: str, path: Path) -> bool:
        self.fetched.append(key)
        if key.startswith("slow"):
            self.reached.set()
            assert self.go.wait(60)
        path.write_bytes(self.content)
        return key != "gone"


def processes() -> list[psutil.Process]:
    """Those that measure; a test before may have started others, such as a database, and any of them may end now."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "osora_core.data.measure" in child.cmdline():
                found.append(child)
    return found


@pytest.fixture
def base(served_runtime: Runtime, tmp_path: Path) -> str:
    served_runtime.tokenizer.save_pretrained(tmp_path / "base")
    served_runtime.model.config.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def test_it_counts_as_a_job_does(server: InferenceServer, served_runtime: Runtime, base: str, tmp_path: Path) -> None:
    """And a request that comes meanwhile is answered; the process ends with the server."""
    server.measure_by(Measurer(Store(), {"tiny": base}, Scratch(tmp_path)))
    response = server.http.post("/measure", json=asked())
    assert response.status_code == 200, response.text
    measure = response.json()["measure"]
    examples = [Renderer(served_runtime.tokenizer, 10**6).render(line, 1) for line in LINES]
    assert response.json()["base_fingerprint"] == served_runtime.basis.base_fingerprint
    assert measure["limit"] == served_runtime.max_length
    assert (measure["rows"], measure["counted"]) == (3, 3)
    assert measure["tokens"] == sum(map(len, examples))
    assert measure["trained_tokens"] == sum(example.loss_tokens for example in examples)
    limited = server.http.post("/measure", json=asked(limit=len(examples[0]))).json()["measure"]
    assert [row["line"] for row in limited["over"]] == [2, 3]
    (child,) = processes()
    assert child.nice() == 19
    refused = server.http.post("/measure", json=asked(sha256="0" * 64))
    assert refused.status_code == 502
    assert "its hash has changed" in refused.json()["error"]["message"]
    gone = server.http.post("/measure", json=asked(object_key="gone"))
    assert gone.json()["error"]["code"] == "file_missing"
    assert server.http.post("/measure", json=asked(base="other")).status_code == 503
    assert httpx.post(f"{server.http.base_url}/measure", json=asked()).status_code == 401


def request(key: str, tenant: str) -> MeasureRequest:
    return MeasureRequest(**asked(object_key=key, tenant=tenant))


def test_tenants_take_turns(tmp_path: Path) -> None:
    store = Store()

    async def flood() -> list[str]:
        measurer = Measurer(store, {}, Scratch(tmp_path))
        measurer._ask = lambda *_: asyncio.sleep(0, {})  # type: ignore[method-assign, assignment]
        first = asyncio.create_task(measurer.measure(request("slow", "a"), 1))
        assert await asyncio.to_thread(store.reached.wait, 60)
        others = [asyncio.create_task(measurer.measure(request(f"a{n}", "a"), 1)) for n in range(3)]
        others.append(asyncio.create_task(measurer.measure(request("b", "b"), 1)))
        await asyncio.sleep(0)
        store.go.set()
        await asyncio.gather(first, *others)
        return store.fetched

    assert asyncio.run(flood()) == ["slow", "b", "a0", "a1", "a2"]


def test_a_process_that_breaks_off_is_replaced(base: str, tmp_path: Path) -> None:
    async def ask() -> tuple[int, int]:
        measurer = Measurer(Store(), {"tiny": base}, Scratch(tmp_path))
        try:
            await measurer.measure(request("one", "a"), 100)
            (first,) = processes()
            first.kill()
            first.wait(60)
            with suppress(ServerError):  # it may not have been noticed yet
                await measurer.measure(request("two", "a"), 100)
            await measurer.measure(request("three", "a"), 100)
            (second,) = processes()
            return first.pid, second.pid
        finally:
            await measurer.close()

    first, second = asyncio.run(ask())
    assert first != second
    assert processes() == []
