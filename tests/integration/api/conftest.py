"""The API as a real server, with a key, and fake inference servers behind it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api import gateway, services
from api.app import create_app
from api.health import endpoints as health
from api.server import Server
from registry import adapters, jobs
from registry.context import Registry
from registry.models import Adapter
from registry.settings import Settings
from registry.tenants import Principal, create_key
from tests.integration.api.fake_inference import FakeInference
from tests.integration.api.servers import running
from tests.support.jobs import claim, new_adapter, submit

TOKEN = "internal-token-of-the-tests"
MAX_UPLOAD_BYTES = 200_000
ZIP = b"PK, as far as the API knows" * 50


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes share a process with who asks them: what is held up for two seconds there has not gone."""
    monkeypatch.setattr(gateway, "_PROBE_TIMEOUT", httpx.Timeout(60))
    monkeypatch.setattr(services, "_TIMEOUT", httpx.Timeout(600, connect=60))
    monkeypatch.setattr(health, "_PATIENCE_SECONDS", 60)


@pytest.fixture
def inference() -> Iterator[dict[str, FakeInference]]:
    """Two inference servers, by URL."""
    with ExitStack() as stack:
        fakes = [FakeInference(TOKEN) for _ in range(2)]
        yield {stack.enter_context(running(fake.server())): fake for fake in fakes}


@pytest.fixture
def fake(inference: dict[str, FakeInference]) -> FakeInference:
    """The first of them, for tests that need one."""
    return next(iter(inference.values()))


@pytest.fixture
def inference_urls() -> str:
    """Nobody answers there; tests of `generate` say otherwise."""
    return "http://127.0.0.1:9"


@pytest.fixture
def broker() -> str:
    """Nobody answers there; a test of the broker says otherwise."""
    return "redis://127.0.0.1:9/0"


@pytest.fixture
def settings(tmp_path: Path, database_url: str, inference_urls: str, broker: str) -> Settings:
    """Settings with everything under the test's own directory."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        inference_urls=inference_urls,
        broker_url=broker,
        internal_token=SecretStr(TOKEN),
        max_upload_bytes=MAX_UPLOAD_BYTES,
        port=0,
        log_level="CRITICAL",
    )


@pytest.fixture
def server(settings: Settings, registry: Registry) -> Server:
    """The API, not yet running."""
    return Server(create_app(settings), settings)


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """The running API."""
    with running(server) as url:
        yield url


@pytest.fixture
def anonymous(url: str) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def client(url: str, api_key: str) -> Iterator[httpx.Client]:
    """A client with a key that may do everything."""
    with httpx.Client(base_url=url, timeout=60, headers={"authorization": f"Bearer {api_key}"}) as client:
        yield client


@pytest.fixture
def client_with(url: str, registry: Registry) -> Iterator[Callable[..., httpx.Client]]:
    """Makes clients of any tenant with any scopes."""
    with ExitStack() as stack:

        def make(*scopes: str, tenant: str = "default") -> httpx.Client:
            with registry.transaction() as session:
                _, key = create_key(session, tenant, "test", scopes)
            headers = {"authorization": f"Bearer {key}"}
            return stack.enter_context(httpx.Client(base_url=url, timeout=60, headers=headers))

        yield make


@pytest.fixture
def adapter(registry: Registry, principal: Principal) -> Adapter:
    """A trained adapter, its bytes in the store."""
    job = submit(registry, principal, suffix="triage")
    attempt = claim(registry, job)
    new = replace(new_adapter(attempt), bytes=len(ZIP))
    registry.store.put(new.object_key, ZIP)
    with registry.transaction() as session:
        found = jobs.complete(session, attempt, step=9, trained_tokens=99, adapter=new, metrics={})
    with registry.reading() as session:
        return adapters.get(session, principal, found.id)


OF_FILES = ("problems", "problem_count")


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which must have the one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error.keys() <= {"message", "type", "param", "code", "line", "field", "next_action", *OF_FILES}
    assert error["message"]
    return error
