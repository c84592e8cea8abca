"""How the API stops: nothing of it is in the database any more when that is closed."""

import threading
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from api.server import Server
from registry.context import Registry
from registry.tenants import Principal
from tests.integration.api.servers import running
from tests.integration.api.test_events import services, stream
from tests.support.jobs import submit


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("table", ["job_events", "api_keys", "bases"])
def test_a_slow_look_beside_the_requests_ends_before_the_database_is_closed(
    server: Server, registry: Registry, principal: Principal, api_key: str, table: str
) -> None:
    """Of who reads events, of who looks for revoked keys, of who tells inference servers of added bases."""
    job = submit(registry, principal)
    looking: list[str] = []
    found: list[list[str]] = []
    reached, closed = threading.Event(), threading.Event()

    def take_long(_: Any, __: Any, statement: str, *___: Any) -> None:
        if f"FROM {table}" in statement:
            looking.append(statement)
            reached.set()
            closed.wait(1)
            looking.pop()

    def close(_: Any) -> None:
        found.append([*looking])
        closed.set()

    headers = {"authorization": f"Bearer {api_key}"}
    with (
        running(server) as url,
        httpx.Client(base_url=url, timeout=60, headers=headers) as client,
        stream(client, job) as events,
    ):
        next(events)
        event.listen(services(server).aside.engine, "before_cursor_execute", take_long)
        event.listen(services(server).aside.engine, "engine_disposed", close)
        assert reached.wait(60)
        server.should_exit = True
        assert "done" not in [said.event for said in events]
    assert found == [[]]
