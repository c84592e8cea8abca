"""What a key has open when it ends: it ends too, through every door and in every process."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from api.app import create_app
from registry import suspension, tenants
from registry.context import Registry
from registry.models import ApiKey
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.api.conftest import Server, error_of
from tests.integration.api.fake_inference import FakeInference
from tests.integration.api.servers import running
from tests.support.jobs import submit

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PATIENCE_SECONDS = 60
PROMPT = {"prompt": "x", "stream": True}
CHAT = {"messages": [{"role": "user", "content": "x"}], "stream": True}
DOORS: dict[str, dict[str, Any]] = {
    "/generate": PROMPT,
    "/v1/completions": {**PROMPT, "model": "osora-tiny"},
    "/v1/chat/completions": {**CHAT, "model": "osora-tiny"},
    "/v1/responses": {"model": "osora-tiny", "input": "x", "stream": True},
    "/v1/messages": {**CHAT, "model": "osora-tiny", "max_tokens": 9},
}


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    """A server that begins a stream and never goes on."""
    url, fake = next(iter(inference.items()))
    fake.mood = "hanging"
    return url


@pytest.fixture
def another(settings: Settings, url: str) -> Iterator[str]:
    """A second process's API of the same installation."""
    with running(Server(create_app(settings), settings)) as url:
        yield url


@pytest.fixture
def key(registry: Registry) -> tuple[str, str]:
    """The id of a key of another tenant, and the key."""
    with registry.transaction() as session:
        row, plaintext = tenants.create_key(session, "acme", "ci", ["read", "generate"])
    return row.id, plaintext


def revoke(registry: Registry, principal: Principal, key_id: str) -> None:
    with registry.transaction() as session:
        tenants.revoke_key(session, principal, key_id)


def expire(registry: Registry, principal: Principal, key_id: str) -> None:
    with registry.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=ApiKey.created_at))


def suspend(registry: Registry, principal: Principal, key_id: str) -> None:
    with registry.transaction() as session:
        suspension.suspend(session, principal, "acme")


class Stream(threading.Thread):
    """A stream through one door. `began`: something has come; `text`: all that came."""

    def __init__(self, url: str, path: str, key: str) -> None:
        super().__init__()
        self.began = threading.Event()
        self.text = ""
        self.seconds = 0.0
        self._client = httpx.Client(base_url=url, timeout=60, headers={"authorization": f"Bearer {key}"})
        self._path = path
        self.start()

    def run(self) -> None:
        body = DOORS[self._path] if "/v1/" in self._path else {**DOORS[self._path], "base": "osora-tiny"}
        with self._client, self._client.stream("POST", self._path, json=body) as response:
            for piece in response.iter_text():
                self.text += piece
                self.began.set()

    def ended(self) -> str:
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive(), f"{self._path} goes on"
        return self.text


def test_streams_of_every_door_end_with_their_key(
    url: str, another: str, registry: Registry, principal: Principal, key: tuple[str, str], client: httpx.Client
) -> None:
    key_id, plaintext = key
    streams = [Stream(base, path, plaintext) for base in (url, another) for path in DOORS]
    for stream in streams:
        assert stream.began.wait(PATIENCE_SECONDS)
    assert client.delete(f"/keys/{key_id}").json()["deleted"]
    for stream in streams:
        assert "was revoked or has expired" in stream.ended()
    with httpx.Client(base_url=another, headers={"authorization": f"Bearer {plaintext}"}) as stale:
        error_of(stale.get("/jobs"), 401)


@pytest.mark.parametrize("end", [expire, suspend])
def test_other_ends_of_a_key(
    url: str,
    registry: Registry,
    principal: Principal,
    key: tuple[str, str],
    api_key: str,
    end: Callable[[Registry, Principal, str], None],
    fake: FakeInference,
) -> None:
    theirs, ours = Stream(url, "/generate", key[1]), Stream(url, "/generate", api_key)
    assert theirs.began.wait(PATIENCE_SECONDS)
    assert ours.began.wait(PATIENCE_SECONDS)
    end(registry, principal, key[0])
    assert '"code":"key_ended"' in theirs.ended().replace(": ", ":")
    assert ours.is_alive()
    revoke(registry, principal, principal.key_id)
    ours.ended()
    # And nothing is generated any more for those who do not get it.
    assert fake.abandoned.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("end", [revoke, expire, suspend])
def test_who_follows_a_job_is_told_no_more(
    url: str,
    registry: Registry,
    principal: Principal,
    key: tuple[str, str],
    end: Callable[[Registry, Principal, str], None],
) -> None:
    with registry.reading() as session:
        who = tenants.authenticate(session, key[1])
    job = submit(registry, who)
    headers = {"authorization": f"Bearer {key[1]}", "accept": "text/event-stream"}
    with httpx.stream("GET", f"{url}/jobs/{job.id}/events", headers=headers, timeout=PATIENCE_SECONDS) as response:
        lines = response.iter_lines()
        next(line for line in lines if line.startswith("event: message"))
        end(registry, principal, key[0])
        assert not any(line.startswith("event: done") for line in lines)  # and it ends


def test_whoever_waits_for_a_whole_answer_is_refused(
    url: str, registry: Registry, principal: Principal, key: tuple[str, str], fake: FakeInference
) -> None:
    answers: list[httpx.Response] = []
    headers = {"authorization": f"Bearer {key[1]}"}

    def wait() -> None:
        answers.append(httpx.post(f"{url}/generate", json={"prompt": "x"}, headers=headers, timeout=60))

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert fake.reached.wait(PATIENCE_SECONDS)
    revoke(registry, principal, key[0])
    waiting.join(PATIENCE_SECONDS)
    assert error_of(answers[0], 401)["code"] == "key_ended"
    assert fake.abandoned.wait(PATIENCE_SECONDS)
