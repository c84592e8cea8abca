"""An inference server over a small random base, with a store of its own."""

import hashlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from inference.app import create_app
from inference.generation import Served
from inference.loop import EngineLoop, Outputs
from inference.measuring import Measurer
from inference.metering import Account
from inference.settings import InferenceSettings
from inference.store import ArtifactStore
from osora_core.adapter import Adapter
from osora_core.basis import BasisCache
from osora_core.inference import InferenceEngine, Output, Request
from osora_core.inference.request import Computed
from osora_core.runtime import Runtime, set_threads
from tests.integration.api.servers import running
from tests.support.tiny_base import make_base

TOKEN = "internal-token-of-the-tests"


@pytest.fixture(scope="session")
def served_runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    folder = tmp_path_factory.mktemp("served")
    base = make_base(folder / "model")
    return Runtime.load("tiny", BasisCache(folder / "cache"), path=str(base), device="cpu", rank=8)


class Gate:
    """Objects whose key begins with "slow" are not read before `open` is set; `reached` says that one was asked for."""

    def __init__(self, store: ArtifactStore) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self._get = store.get

    def __call__(self, key: str) -> bytes:
        if key.startswith("slow"):
            self.reached.set()
            assert self.open.wait(60)
        return self._get(key)


class Steps:
    """Lets a test stop an engine between two steps, and learn of what it cancels."""

    def __init__(self, engine: InferenceEngine) -> None:
        self.go = threading.Event()
        self.go.set()
        self.held = threading.Event()
        self.cancelled = threading.Event()
        self._free = 0
        self._step, self._cancel = engine.step, engine.cancel
        engine.step, engine.cancel = self._on_step, self._on_cancel  # type: ignore[method-assign]

    def hold(self, after: int = 0) -> None:
        """From now on no step, but for the next few, ends before `go` is set; `held` is set once one waits."""
        self.held.clear()
        self._free = after
        self.go.clear()

    def _on_step(self) -> list[Output]:
        outputs = self._step()
        if not self.go.is_set():
            if self._free > 0:
                self._free -= 1
                return outputs
            self.held.set()
            assert self.go.wait(60)
        return outputs

    def _on_cancel(self, request_id: str) -> Computed | None:
        computed = self._cancel(request_id)
        self.cancelled.set()
        return computed


class Clients:
    """Says when a request is handed to the engine, and when the server knows that whoever asked has left."""

    def __init__(self, loop: EngineLoop) -> None:
        self.came, self.left = threading.Event(), threading.Event()
        self._loop = loop
        self._submit, self._finish = loop.submit, loop.finish
        loop.submit, loop.finish = self._on_submit, self._on_finish  # type: ignore[method-assign]

    def _on_submit(self, requests: Sequence[Request], account: Account) -> Outputs:
        outputs = self._submit(requests, account)
        self.came.set()
        return outputs

    def _on_finish(self, request_ids: Iterable[str]) -> None:
        ids = list(request_ids)
        is_early = any(one in self._loop._listeners for one in ids)
        self._finish(ids)
        if is_early:
            self.left.set()


class InferenceServer:
    """A running server with rows for two requests and places for six; `publish` puts adapters into its store."""

    def __init__(self, url: str, app: FastAPI, folder: Path, runtime: Runtime, gate: Gate) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=300)
        self.gate = gate
        self.runtime = runtime
        self.served: Served = app.state.bases.held("tiny")
        self.engine: InferenceEngine = self.served.loop.engine
        self.steps = Steps(self.engine)
        self.clients = Clients(self.served.loop)
        self._app = app
        self._folder = folder
        self._numbers = itertools.count()

    def measure_by(self, measurer: Measurer) -> None:
        """Have files measured by another one than the server's own."""
        self._app.state.measurer = measurer

    def publish(self, name: str, *, seed: int = 0, version: int = 1, scale: float = 0.2) -> dict[str, Any]:
        """An adapter with random vectors; the reference that the API would send."""
        basis = self.runtime.basis
        row = torch.randn(basis.row_length, generator=torch.Generator().manual_seed(seed)) * scale
        adapter = Adapter.from_row(row, basis, rank=basis.rank, modules=set(basis.target_modules), base="tiny")
        return self.put(f"{name}-{version}", adapter.to_zip(), id=f"adp-{name}", version=version)

    def put(self, key: str, data: bytes, **fields: Any) -> dict[str, Any]:
        """Store any bytes as an adapter."""
        (self._folder / key).write_bytes(data)
        return {
            "id": f"adp-{key}",
            "name": f"ft:tiny:default:{key}:x",
            "version": 1,
            "object_key": key,
            "sha256": hashlib.sha256(data).hexdigest(),
            "base_fingerprint": self.runtime.basis.base_fingerprint,
            "basis_fingerprint": self.runtime.basis.fingerprint,
            **fields,
        }

    def body(self, **fields: Any) -> dict[str, Any]:
        """What the API would send."""
        asked = {} if "messages" in fields else {"prompt": "help the customer"}
        return {"request_id": f"gen-{next(self._numbers)}", "base": "tiny", "max_tokens": 8, **asked, **fields}

    def ask(self, **fields: Any) -> httpx.Response:
        # Not httpx's own JSON, which has no way to say half of a surrogate pair.
        content = json.dumps(self.body(**fields))
        return self.http.post("/generate", content=content, headers={"content-type": "application/json"})

    def text(self, **fields: Any) -> str:
        response = self.ask(**fields)
        assert response.status_code == 200, response.text
        return str(response.json()["text"])

    def error(self, status: int, **fields: Any) -> dict[str, Any]:
        response = self.ask(**fields)
        assert response.status_code == status, response.text
        error: dict[str, Any] = response.json()["error"]
        return error


@pytest.fixture
def server(served_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceServer]:
    # A model this small gains nothing from a second thread, and waits for it where other programs have the cores.
    monkeypatch.setattr("inference.loop.set_threads", lambda: set_threads(1))
    folder = tmp_path / "objects"
    folder.mkdir()
    settings = InferenceSettings(
        data_dir=tmp_path,
        object_store=f"file://{folder}",
        internal_token=SecretStr(TOKEN),
        inference_rows=2,
        inference_adapters=2,
        inference_queue=4,
    )
    store = ArtifactStore(settings)
    gate = Gate(store)
    store.get = gate  # type: ignore[method-assign]
    engine = InferenceEngine(served_runtime, rows=settings.inference_rows, adapters=settings.inference_adapters)
    app = create_app(settings, {"tiny": engine}, store, on_death=lambda: None)
    config = uvicorn.Config(app, port=0, log_level="critical", loop="asyncio", timeout_graceful_shutdown=1)
    with running(uvicorn.Server(config)) as url:
        made = InferenceServer(url, app, folder, served_runtime, gate)
        with made.http:
            yield made
        gate.open.set()
        made.steps.go.set()
