"""A job's events, as pages and as a stream that is taken up again without gap or repeat."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from sqlalchemy import event

from api import event_reader, sse
from api.app import create_app
from api.server import Server
from api.services import Services
from registry import jobs
from registry.context import Registry
from registry.errors import NotFound
from registry.jobs import Attempt
from registry.jobs.following import news
from registry.models import Job
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.servers import running
from tests.support.jobs import claim, submit


@pytest.fixture
def job(registry: Registry, principal: Principal) -> Job:
    return submit(registry, principal)


@pytest.fixture
def attempt(registry: Registry, job: Job) -> Attempt:
    return claim(registry, job)


@contextmanager
def stream(client: httpx.Client, job: Job, *, query: str = "", **headers: str) -> Iterator[Iterator[ServerSentEvent]]:
    accept = {"accept": "text/event-stream", **headers}
    with client.stream("GET", f"/jobs/{job.id}/events{query}", headers=accept) as response:
        assert response.status_code == 200
        # httpx-sse makes an empty event of a heartbeat, which is there wherever a test takes fifteen seconds.
        yield (said for said in EventSource(response).iter_sse() if said.data)


def say(registry: Registry, attempt: Attempt, *words: str) -> None:
    for word in words:
        with registry.transaction() as session:
            jobs.add_event(session, attempt, word)


def services(server: Server) -> Services:
    found: Services = server.config.app.state.services
    return found


def texts(events: Iterator[ServerSentEvent]) -> list[str]:
    return [json.loads(event.data)["message"] for event in events if event.event != "done"]


def test_a_stream_follows_the_job_to_its_end(
    client: httpx.Client, registry: Registry, job: Job, attempt: Attempt
) -> None:
    with stream(client, job) as events:
        assert json.loads(next(events).data)["message"].startswith("Created")
        next(events), next(events)
        metrics = {"train_loss": 1.5}
        with registry.transaction() as session:
            jobs.record_progress(
                session,
                attempt,
                step=1,
                total_steps=9,
                trained_tokens=8,
                metrics=metrics,
                compute_seconds=0.5,
                remaining_seconds=None,
            )
        event = next(events)
        data: dict[str, Any] = json.loads(event.data)
        assert event.event == data["type"] == "metrics"
        assert data["id"] == f"ftevent-{event.id}"
        assert data["data"] == {"step": 1, "total_steps": 9, "train_loss": 1.5}
        with registry.transaction() as session:
            jobs.fail(session, attempt, _user_error())
        last, done = events
        assert json.loads(last.data)["level"] == "error"
        assert done.event == "done"
        assert json.loads(done.data) == client.get(f"/jobs/{job.id}").json()
        assert json.loads(done.data)["error"]["code"] == "bad_data"


def _user_error() -> jobs.JobError:
    return {"code": "bad_data", "message": "no", "param": None, "fault": "user", "next_action": None}


@pytest.mark.parametrize("way", ["header", "header with prefix", "query"])
def test_taken_up_again_without_gap_or_repeat(
    client: httpx.Client, registry: Registry, job: Job, attempt: Attempt, way: str
) -> None:
    say(registry, attempt, *"abcdef")
    seen: list[str] = []
    last = ""
    for _ in range(4):
        match way:
            case "query":
                again = stream(client, job, query=f"?after=ftevent-{last}" if last else "")
            case "header":
                again = stream(client, job, **({"last-event-id": last} if last else {}))
            case _:
                again = stream(client, job, **({"last-event-id": f"ftevent-{last}"} if last else {}))
        with again as events:
            for _ in range(2):
                event = next(events)
                seen.append(json.loads(event.data)["message"])
                last = event.id
    assert seen[3:] == list("abcde")
    with registry.transaction() as session:
        jobs.release(session, attempt, "a pause for tea")
        jobs.cancel(session, _principal(registry, job), job.id)
    with stream(client, job, **{"last-event-id": last}) as events:
        assert texts(events)[0] == "f"


def _principal(registry: Registry, job: Job) -> Principal:
    return Principal(job.tenant_id, "default", "key", frozenset({"admin"}))


@pytest.mark.parametrize("longest_queue", [1000, 2])
def test_concurrent_writers_and_watchers(
    client: httpx.Client,
    registry: Registry,
    job: Job,
    attempt: Attempt,
    longest_queue: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also a watcher that does not keep up, and reads again what it was not told."""
    monkeypatch.setattr(event_reader, "_LONGEST_QUEUE", longest_queue)
    words = [str(n) for n in range(60)]

    def write() -> None:
        say(registry, attempt, *words)
        with registry.transaction() as session:
            jobs.fail(session, attempt, _user_error())

    writer = threading.Thread(target=write)
    writer.start()
    with stream(client, job, query="?stream=true") as events:
        heard = texts(events)
    writer.join()
    assert heard[3:-1] == words


def test_a_restart_of_the_api_leaves_neither_gap_nor_repeat(
    settings: Settings, registry: Registry, principal: Principal, api_key: str, job: Job, attempt: Attempt
) -> None:
    """Events go on while it serves, while it stops under the open stream, and while it is away."""

    def write(last_time: bool) -> None:
        say(registry, attempt, *map(str, range(30)))
        if last_time:
            with registry.transaction() as session:
                jobs.fail(session, attempt, _user_error())

    heard: list[tuple[str, str]] = []
    for last_time in (False, False, True):
        server = Server(create_app(settings), settings)
        headers = {"authorization": f"Bearer {api_key}", "last-event-id": heard[-1][0] if heard else ""}
        writer = threading.Thread(target=write, args=(last_time,))
        with running(server) as url, httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            writer.start()
            with stream(client, job) as events:
                for event in events:
                    if event.event == "done":
                        assert last_time
                        break
                    heard.append((event.id, json.loads(event.data)["message"]))
                    server.should_exit = not last_time
        writer.join()
        if not last_time:
            say(registry, attempt, "nobody serves")
    with registry.reading() as session:
        written = jobs.events(session, principal, job.id, limit=1000).data
    assert len(written) == 3 + 30 * 3 + 2 + 1
    assert heard == [(str(event.id), event.message) for event in written]


def test_heartbeats(client: httpx.Client, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments at once, so that everybody sees that the stream has begun, and while there is nothing to say."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(event_reader, "POLL_SECONDS", 0.02)
    with client.stream("GET", f"/jobs/{job.id}/events", headers={"accept": "text/event-stream"}) as response:
        lines = (line for line in response.iter_lines() if line)
        assert next(lines) == ": ping"
        two_events = list(islice(lines, 6))
        assert [line.partition(":")[0] for line in two_events] == ["event", "data", "id"] * 2
        assert list(islice(lines, 3)) == [": ping"] * 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_look_that_fails_ends_nobodys_stream(
    client: httpx.Client, registry: Registry, job: Job, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a tenant is deleted between finding that its job has ended and reading the job."""
    failed = threading.Event()

    def fails_once(*asked: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise NotFound("no such job")
        return news(*asked)

    monkeypatch.setattr(event_reader, "_OUTAGE_SECONDS", 0.01)
    with stream(client, job) as events:
        next(events)
        monkeypatch.setattr(event_reader, "news", fails_once)
        assert failed.wait(60)
        with registry.transaction() as session:
            jobs.fail(session, attempt, _user_error())
        *_, done = events
        assert done.event == "done"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestManners:
    def test_more_events_than_one_look_fetches(
        self,
        client: httpx.Client,
        registry: Registry,
        job: Job,
        attempt: Attempt,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(event_reader, "BATCH", 3)
        say(registry, attempt, *"abcdefgh")
        with registry.transaction() as session:
            jobs.fail(session, attempt, _user_error())
        with stream(client, job) as events:
            assert texts(events)[3:-1] == list("abcdefgh")

    def test_it_ends_when_the_server_stops(self, server: Server, client: httpx.Client, job: Job) -> None:
        with stream(client, job) as events:
            next(events)
            server.should_exit = True
            assert "done" not in [event.event for event in events]

    def test_it_ends_when_the_client_leaves(self, server: Server, client: httpx.Client, job: Job) -> None:
        with stream(client, job) as events:
            next(events)
            assert len(server.server_state.tasks) == 1
        client.close()
        deadline = time.monotonic() + 60
        while server.server_state.tasks:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_many_watchers_hold_no_connections(self, url: str, api_key: str, job: Job) -> None:
        # More than the database pool has.
        headers = {"authorization": f"Bearer {api_key}"}
        watchers = [httpx.Client(base_url=url, timeout=60, headers=headers) for _ in range(50)]
        opened = [stream(watcher, job) for watcher in watchers]
        for one in opened:
            next(one.__enter__())
        assert watchers[0].get(f"/jobs/{job.id}").status_code == 200
        for one in opened:
            one.__exit__(None, None, None)
        for watcher in watchers:
            watcher.close()

    def test_many_watchers_cost_the_database_what_one_does(
        self,
        url: str,
        server: Server,
        api_key: str,
        job: Job,
        registry: Registry,
        attempt: Attempt,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(event_reader, "POLL_SECONDS", 1.0)
        number, asked = 60, 0

        def count(*_: object) -> None:
            nonlocal asked
            asked += 1

        headers = {"authorization": f"Bearer {api_key}"}
        with httpx.Client(base_url=url, timeout=60, headers=headers, limits=httpx.Limits(max_connections=None)) as one:
            with ExitStack() as stack:
                watchers = [stack.enter_context(stream(one, job)) for _ in range(number)]
                for watcher in watchers:
                    next(watcher), next(watcher), next(watcher)
                for registry_of_api in (services(server).registry, services(server).aside):
                    event.listen(registry_of_api.engine, "before_cursor_execute", count)
                began = time.monotonic()
                say(registry, attempt, "now")
                assert {json.loads(next(watcher).data)["message"] for watcher in watchers} == {"now"}
            # Twenty a second, with all that works beside requests; looks of each watcher's own would be 180 a second.
            assert asked < number + 40 * (time.monotonic() - began)

    def test_a_tenant_has_so_many(
        self, server: Server, client: httpx.Client, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(services(server).events, "_most_of_tenant", 1)
        with stream(client, job) as events:
            next(events)
            refused = client.get(f"/jobs/{job.id}/events?stream=1")
            assert error_of(refused, 429)["code"] == "too_many_streams"
            assert refused.headers["retry-after"]
            assert client.get(f"/jobs/{job.id}/events").status_code == 200
        client.close()
        deadline = time.monotonic() + 60
        while services(server).events._of_tenants:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_pages(self, client: httpx.Client, registry: Registry, job: Job, attempt: Attempt) -> None:
        say(registry, attempt, "a", "b")
        path = f"/jobs/{job.id}/events"
        newest = client.get(f"{path}?limit=2").json()
        assert [event["message"] for event in newest["data"]] == ["b", "a"]
        assert newest["has_more"] is True
        assert newest["data"][0]["object"] == "fine_tuning.job.event"
        older = client.get(path, params={"after": newest["last_id"]}).json()
        assert [event["message"] for event in older["data"]][-1].startswith("Created")
        assert older["has_more"] is False
        params = {"order": "asc", "after": older["first_id"]}
        assert [event["message"] for event in client.get(path, params=params).json()["data"]] == ["a", "b"]
