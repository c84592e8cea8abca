"""What a request with a key costs, in what does not depend on the machine; and who waits for whom."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import event

from api.deps import get_read_session, get_session
from api.jobs import endpoints
from api.routes import ThreadRoute
from registry import tenants
from registry.context import Registry
from registry.tenants import Principal
from tests.integration.api.conftest import Server
from tests.integration.api.test_events import services

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

REQUESTS = 40


def test_a_request_takes_one_thread_and_one_session_and_its_key_is_known(
    client: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counter[str]()
    run_sync = anyio.to_thread.run_sync

    def counted(*arguments: Any, **options: Any) -> Any:
        counts["threads"] += 1
        return run_sync(*arguments, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    for of_api in (services(server).registry, services(server).aside):
        event.listen(of_api.engine, "begin", lambda _: counts.update(["sessions"]))
    began = time.monotonic()
    for _ in range(REQUESTS):
        assert client.get("/jobs").status_code == 200
    # A key is looked up twice a second, and what works beside the requests looks now and then as well.
    beside = 10 + 10 * (time.monotonic() - began)
    assert counts["threads"] <= REQUESTS + beside
    assert counts["sessions"] <= REQUESTS + beside
    for _ in range(REQUESTS):
        assert client.get("/nothing").status_code == 404
    beside = 10 + 10 * (time.monotonic() - began)
    assert counts["threads"] <= REQUESTS + beside


def test_every_session_is_one_that_its_route_ends(server: Server) -> None:
    found = 0
    for router in {id(router): router for _, router in server.config.app.state.routers}.values():
        for route in router.routes:
            if not isinstance(route, APIRoute):
                continue
            if {get_session, get_read_session} & {inner.call for inner in route.dependant.dependencies}:
                assert isinstance(route, ThreadRoute), route.path
                found += 1
    assert found > 20


def test_a_key_that_was_revoked_elsewhere_stops_within_a_second(
    client: httpx.Client, url: str, registry: Registry, principal: Principal
) -> None:
    with registry.transaction() as session:
        key, plaintext = tenants.create_key(session, "acme", "ci", ["read"])
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {plaintext}"}, timeout=30) as theirs:
        assert theirs.get("/jobs").status_code == 200
        with registry.transaction() as session:
            tenants.revoke_key(session, principal, key.id)
        time.sleep(1)
        assert theirs.get("/jobs").status_code == 401


def test_one_tenants_requests_wait_for_each_other_and_no_other_tenants_do(
    client: httpx.Client, url: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.transaction() as session:
        _, plaintext = tenants.create_key(session, "crowd", "ci", ["read"])
    released, inside = threading.Event(), threading.Semaphore(0)
    list_jobs = endpoints.jobs.list

    def slow(session: Any, principal: Principal, **query: Any) -> Any:
        if principal.tenant_name == "crowd":
            inside.release()
            released.wait(60)
        return list_jobs(session, principal, **query)

    monkeypatch.setattr(endpoints.jobs, "list", slow)
    crowd = 60  # more than there are threads
    headers = {"authorization": f"Bearer {plaintext}"}
    with (
        httpx.Client(base_url=url, headers=headers, timeout=90, limits=httpx.Limits(max_connections=None)) as theirs,
        ThreadPoolExecutor(crowd) as threads,
    ):
        asked = [threads.submit(theirs.get, "/jobs") for _ in range(crowd)]
        try:
            assert inside.acquire(timeout=30)
            assert client.get("/jobs", timeout=30).status_code == 200
            assert not any(answer.done() for answer in asked)
        finally:
            released.set()
        assert {answer.result().status_code for answer in asked} == {200}
