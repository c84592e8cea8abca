"""Webhooks over HTTP: the routes, and deliveries by the running API to real receivers."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import openai as package
import pytest
from openai import OpenAI
from sqlalchemy.exc import OperationalError

from api.app import create_app
from api.server import Server
from registry import jobs, tenants, webhooks
from registry.context import Registry
from registry.settings import Settings
from registry.tenants import Principal
from registry.webhooks.delivering import LEASE_SECONDS, MAX_ATTEMPTS
from tests.integration.api.conftest import error_of
from tests.integration.api.openai.conftest import openai as openai
from tests.integration.api.servers import running
from tests.support.jobs import submit
from tests.support.webhooks import PATIENCE_SECONDS, Receiver, pass_time, receiving, status

HOOK = {"name": "hook", "url": "https://hooks.example.com/osora", "event_types": ["fine_tuning.job.cancelled"]}


@pytest.fixture
def allow_private() -> bool:
    return True


@pytest.fixture
def settings(settings: Settings, allow_private: bool) -> Settings:
    return settings.model_copy(update={"webhooks_allow_private": allow_private, "maintenance_seconds": 0.05})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as receiver:
        yield receiver


def create(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    response = client.post("/webhook_endpoints", json={**HOOK, **changes})
    assert response.status_code == 200, response.text
    created: dict[str, Any] = response.json()
    return created


def cancel_one(registry: Registry, principal: Principal) -> str:
    job = submit(registry, principal)
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)
    return job.id


def log_when(client: httpx.Client, endpoint: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The newest line of the log, as soon as it is what is wanted: it is written after the receiver has answered."""
    for _ in range(PATIENCE_SECONDS * 20):
        (newest, *_) = client.get(f"/webhook_endpoints/{endpoint}/deliveries").json()["data"]
        if wanted(newest):
            return dict(newest)
        time.sleep(0.05)
    raise AssertionError(newest)


def test_what_the_openai_client_calls(openai: OpenAI) -> None:
    hooks = openai.webhooks
    types: Any = hooks.event_types.list()
    assert types.data == list(webhooks.EVENT_TYPES)
    created = hooks.create(**HOOK)  # type: ignore[arg-type]
    assert created.signing_secret.startswith("whsec_")
    shown = created.model_dump(exclude={"signing_secret"})
    assert hooks.retrieve(created.id).model_dump() == shown
    assert created.signing_secret_hint is not None
    assert created.signing_secret.rstrip("=").endswith(created.signing_secret_hint.removeprefix("whsec_…"))
    updated = hooks.update(created.id, name="other", event_types=["fine_tuning.job.failed"])
    assert (updated.name, updated.event_types, updated.url) == ("other", ["fine_tuning.job.failed"], HOOK["url"])
    rotated = hooks.rotate_secret(created.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != created.signing_secret
    assert rotated.signing_secret_hint != created.signing_secret_hint
    others = [hooks.create(**HOOK).id for _ in range(2)]  # type: ignore[arg-type]
    assert [one.id for one in hooks.list(limit=2)] == [*others[::-1], created.id]
    deleted = hooks.delete(created.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (created.id, "webhook_endpoint.deleted", True)
    with pytest.raises(package.NotFoundError) as missing:
        hooks.retrieve(created.id)
    assert missing.value.code == "webhook_endpoint_not_found"


@pytest.mark.parametrize("allow_private", [False])
@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"url": "http://hooks.example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "x" * 3000}, "url"),
        ({"url": 7}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["batch.completed"]}, "event_types[0]"),
        ({"event_types": ["fine_tuning.job.failed"] * 51}, "event_types"),
        ({"name": ""}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_what_no_endpoint_can_be(client: httpx.Client, changes: dict[str, Any], param: str) -> None:
    assert error_of(client.post("/webhook_endpoints", json={**HOOK, **changes}), 400)["param"] == param
    endpoint = create(client)["id"]
    assert error_of(client.post(f"/webhook_endpoints/{endpoint}", json=changes), 400)["param"] == param
    assert client.get("/webhook_endpoints").json()["data"][0]["url"] == HOOK["url"]


def test_sent_again_it_makes_no_second_one(client: httpx.Client) -> None:
    headers = {"idempotency-key": "mine"}
    endpoint = client.post("/webhook_endpoints", json=HOOK, headers=headers).json()
    again = client.post("/webhook_endpoints", json=HOOK, headers=headers)
    assert error_of(again, 409)["code"] == "answer_not_kept"  # it held a secret
    rotation = f"/webhook_endpoints/{endpoint['id']}/rotate_secret"
    hint = client.post(rotation, json={}, headers=headers | {"idempotency-key": "other"}).json()["signing_secret_hint"]
    error_of(client.post(rotation, json={}, headers=headers | {"idempotency-key": "other"}), 409)
    (found,) = client.get("/webhook_endpoints").json()["data"]
    assert found["signing_secret_hint"] == hint


def test_scopes_and_tenants(client: httpx.Client, client_with: Callable[..., httpx.Client]) -> None:
    endpoint = f"/webhook_endpoints/{create(client)['id']}"
    calls: list[tuple[str, str, Any]] = [
        ("GET", endpoint, None),
        ("GET", f"{endpoint}/deliveries", None),
        ("POST", endpoint, {"name": "x"}),
        ("POST", f"{endpoint}/rotate_secret", {}),
        ("POST", f"{endpoint}/test", {"event_type": "fine_tuning.job.failed"}),
        ("DELETE", endpoint, None),
    ]
    foreign, reader, writer = (
        client_with("admin", tenant="acme"),
        client_with("read"),
        client_with("train"),
    )
    for method, path, body in calls:
        for door in ("", "/v1"):
            error_of(foreign.request(method, door + path, json=body), 404)
        error_of((writer if method == "GET" else reader).request(method, path, json=body), 403)
    assert foreign.get("/webhook_endpoints").json()["data"] == []
    error_of(reader.post("/webhook_endpoints", json=HOOK), 403)
    assert reader.get(endpoint).json()["name"] == "hook"


def test_an_event_arrives(
    registry: Registry, principal: Principal, client: httpx.Client, openai: OpenAI, receiver: Receiver
) -> None:
    created = create(client, url=receiver.url)
    job = cancel_one(registry, principal)
    received = receiver.next()
    event = openai.webhooks.unwrap(received.body, received.headers, secret=created["signing_secret"])
    assert (event.type, event.data.id) == ("fine_tuning.job.cancelled", job)
    assert isinstance(event, package.types.webhooks.FineTuningJobCancelledWebhookEvent)
    line = log_when(client, created["id"], lambda line: line["status"] == "delivered")
    assert (line["id"], line["event_id"]) == (received.headers["webhook-id"], event.id)
    (attempt,) = line["attempts"]
    assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, 200, None)
    assert line["next_attempt_at"] is None


def test_who_was_down_hears_of_it_later(
    registry: Registry,
    principal: Principal,
    client: httpx.Client,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No attempt comes by itself, however long the test takes.
    monkeypatch.setattr("registry.webhooks.delivering._PAUSES", (3000,) * MAX_ATTEMPTS)
    created = create(client, url=receiver.url)
    receiver.answer = status(503)
    cancel_one(registry, principal)
    first = receiver.next()
    for number in (1, 2, 3):
        line = log_when(client, created["id"], lambda line, n=number: len(line["attempts"]) == n)  # type: ignore[misc]
        assert (line["status"], line["attempts"][-1]["error"]) == ("pending", "it answered 503")
        if number == 3:
            receiver.answer = status(204)
        pass_time(registry, 3600)
        again = receiver.next()
        assert (again.headers["webhook-id"], again.body) == (first.headers["webhook-id"], first.body)
    assert log_when(client, created["id"], lambda line: line["status"] == "delivered")["attempts"][-1]["number"] == 4
    state = client.get(f"/webhook_endpoints/{created['id']}").json()["osora"]
    assert (state["enabled"], state["failing_since"]) == (True, None)


def test_a_receiver_that_hangs_holds_up_nobody_else(
    registry: Registry, principal: Principal, client: httpx.Client, client_with: Callable[..., httpx.Client]
) -> None:
    slow = Receiver()
    slow.answer = lambda handler: slow.ending.wait()  # type: ignore[assignment, return-value]
    with receiving(slow), receiving(Receiver()) as quick:
        theirs = client_with("admin", tenant="acme")
        for _ in range(8):
            create(theirs, url=slow.url)
        with registry.transaction() as session:
            acme = webhooks.list(session, _principal_of(registry, theirs)).data[0].tenant_id
            for _ in range(20):
                webhooks.record(session, acme, "fine_tuning.job.cancelled", {"id": "ftjob-1"})
        slow.next()
        create(client, url=quick.url)
        for _ in range(3):
            cancel_one(registry, principal)
            quick.next()


def test_two_processes_send_each_event_once(
    registry: Registry, principal: Principal, settings: Settings, client: httpx.Client, receiver: Receiver
) -> None:
    created = create(client, url=receiver.url)
    with running(Server(create_app(settings), settings)):
        with registry.transaction() as session:
            for number in range(20):
                job = {"id": f"ftjob-{number}"}
                webhooks.record(session, principal.tenant_id, "fine_tuning.job.cancelled", job)
        ids = [receiver.next().headers["webhook-id"] for _ in range(20)]
        log_when(client, created["id"], lambda line: line["status"] == "delivered")
    assert len(set(ids)) == 20
    assert receiver.received.empty()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_is_away_for_a_moment(
    registry: Registry,
    principal: Principal,
    client: httpx.Client,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is due is found again; an answer that could not be written down means a second delivery."""
    monkeypatch.setattr("api.webhooks.courier._PAUSE_AFTER_TROUBLE_SECONDS", 0.05)
    troubled: Counter[str] = Counter()
    has_failed_to_settle = threading.Event()

    def failing_once(name: str) -> Callable[..., Any]:
        good = getattr(webhooks, name)

        def call(*given: Any) -> Any:
            troubled[name] += 1
            if troubled[name] == 1:
                if name == "settle":
                    has_failed_to_settle.set()
                raise OperationalError("UPDATE …", {"secret": "hush"}, Exception("the database is away"))
            return good(*given)

        return call

    for name in ("claim", "settle"):
        monkeypatch.setattr(webhooks, name, failing_once(name))
    created = create(client, url=receiver.url)
    cancel_one(registry, principal)
    first = receiver.next()
    assert has_failed_to_settle.wait(PATIENCE_SECONDS)
    pass_time(registry, LEASE_SECONDS + 1)
    assert receiver.next().headers["webhook-id"] == first.headers["webhook-id"]
    assert log_when(client, created["id"], lambda line: line["status"] == "delivered")
    assert "the database is away" in caplog.text
    assert "hush" not in caplog.text


def test_a_test(client: httpx.Client, openai: OpenAI, receiver: Receiver) -> None:
    created = create(client, url=receiver.url)
    client.post(f"/webhook_endpoints/{created['id']}", json={"osora": {"enabled": False}})
    receiver.answer = status(418)
    result = openai.webhooks.test(created["id"], event_type="fine_tuning.job.succeeded")
    assert (result.object, result.webhook_endpoint_id, result.status_code, result.success) == (
        "webhook_endpoint.test",
        created["id"],
        418,
        True,
    )
    received = receiver.next()
    event = openai.webhooks.unwrap(received.body, received.headers, secret=created["signing_secret"])
    assert event.type == result.event_type == "fine_tuning.job.succeeded"
    assert client.get(f"/webhook_endpoints/{created['id']}/deliveries").json()["data"] == []


def test_a_test_of_nobody(openai: OpenAI, client: httpx.Client) -> None:
    with socket.socket() as taken:  # and listened to by nobody
        taken.bind(("127.0.0.1", 0))
        created = create(client, url=f"http://127.0.0.1:{taken.getsockname()[1]}/")
        with pytest.raises(package.BadRequestError) as unreachable:
            openai.webhooks.test(created["id"], event_type="fine_tuning.job.succeeded")
    assert unreachable.value.code == "webhook_endpoint_unreachable"
    assert "no connection came about" in unreachable.value.message


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_process_that_dies_between_sending_and_recording(
    registry: Registry, principal: Principal, settings: Settings, receiver: Receiver
) -> None:
    """Another one sends it again, with the same id."""
    with registry.transaction() as session:
        endpoint = webhooks.create(
            session, principal, settings, name="x", url=receiver.url, event_types=["fine_tuning.job.cancelled"]
        ).id
    job = cancel_one(registry, principal)
    doomed: queue.Queue[subprocess.Popen[str]] = queue.Queue()

    def kill(handler: BaseHTTPRequestHandler) -> None:
        """The receiver has it; the sender does not get to hear so."""
        process = doomed.get(timeout=PATIENCE_SECONDS)
        process.kill()
        process.wait()

    receiver.answer = kill
    with api_process(settings) as process:
        doomed.put(process)
        first = receiver.next()
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    pass_time(registry, LEASE_SECONDS + 1)
    receiver.answer = status(200)
    with api_process(settings):
        second = receiver.next()
    assert (second.headers["webhook-id"], second.body) == (first.headers["webhook-id"], first.body)
    assert job in first.body.decode()
    with registry.reading() as session:
        (row,) = webhooks.deliveries(session, principal, endpoint).data
    assert row.attempts[0]["error"] == "the process that sent it ended before it knew what came of it"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_process_ends_though_a_receiver_hangs(
    registry: Registry, principal: Principal, settings: Settings, receiver: Receiver
) -> None:
    with registry.transaction() as session:
        types: Any = ["fine_tuning.job.cancelled"]
        endpoint = webhooks.create(session, principal, settings, name="x", url=receiver.url, event_types=types).id
    receiver.answer = lambda handler: receiver.ending.wait()  # type: ignore[assignment, return-value]
    cancel_one(registry, principal)
    with api_process(settings) as process:
        first = receiver.next()
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    with registry.reading() as session:
        (row,) = webhooks.deliveries(session, principal, endpoint).data
    assert row.attempts == [], "nobody waited for the receiver until it took too long"
    receiver.answer = status(200)
    pass_time(registry, LEASE_SECONDS + 1)
    with api_process(settings):
        assert receiver.next().headers["webhook-id"] == first.headers["webhook-id"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_neither_secrets_nor_urls_are_logged(
    registry: Registry, principal: Principal, settings: Settings, receiver: Receiver
) -> None:
    with registry.transaction() as session:
        for url in (f"{receiver.url}?token=hush", "https://127.0.0.1:1024/?token=hush"):
            types: Any = ["fine_tuning.job.cancelled"]
            webhooks.create(session, principal, settings, name="x", url=url, event_types=types)
    receiver.answer = status(500)
    cancel_one(registry, principal)
    said: list[str] = []
    with api_process(settings.model_copy(update={"log_level": "DEBUG"}), said) as process:
        headers = receiver.next().headers
        process.terminate()
        assert process.stderr is not None
        log = "".join([*said, *process.stderr])
        assert process.wait(PATIENCE_SECONDS) == 0
    assert "hush" not in log
    assert "whsec_" not in log
    assert headers["webhook-signature"] not in log


@contextmanager
def api_process(settings: Settings, said: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """`python -m api` on the test's database, at a port that nobody needs to know, as soon as it is ready or has ended.

    `said` gets the lines that it has written until then.
    """
    environment = {
        **os.environ,
        "OSORA_DATA_DIR": str(settings.data_dir),
        "OSORA_DATABASE_URL": settings.database_url,
        "OSORA_PORT": "0",
        "OSORA_WEBHOOKS_ALLOW_PRIVATE": "true",
        "OSORA_LOG_LEVEL": settings.log_level,
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    with process:
        try:
            for line in process.stderr:
                if said is not None:
                    said.append(line)
                if line == "ready\n":
                    break
            yield process
        finally:
            process.kill()


def _principal_of(registry: Registry, client: httpx.Client) -> Principal:
    with registry.reading() as session:
        return tenants.authenticate(session, client.headers["authorization"].removeprefix("Bearer "))
