"""Usage over HTTP: collected from inference servers, told by day, key, model and kind, and to nobody else."""

import base64
import csv
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from registry import usage
from registry.context import Registry
from registry.settings import Settings
from registry.tenants import Principal, create_key
from registry.usage import Generated
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.integration.api.openai.test_retries_across_processes import Api
from tests.support.jobs import submit

NOW = int(time.time())
DAY = 24 * 3600
TODAY = datetime.fromtimestamp(NOW, UTC).date()


def put(registry: Registry, *records: Generated) -> None:
    with registry.transaction() as session:
        usage.take_over(session, f"segment-{os.urandom(4).hex()}", records, len(records))


def generated(number: int, principal: Principal, **fields: Any) -> Generated:
    said = {
        "tenant_id": principal.tenant_id, "key_id": principal.key_id, "base": "osora-tiny", "adapter_id": "",
        "kind": "chat", "prompt_tokens": 10, "completion_tokens": 3, "ended_at": NOW,
    }  # fmt: skip
    return Generated(number, **{**said, **fields})


def written(principal: Principal, **fields: Any) -> dict[str, Any]:
    """A record as an inference server has it."""
    return {
        "id": "gen-1", "tenant": principal.tenant_id, "key": principal.key_id, "base": "osora-tiny", "adapter": "",
        "kind": "generate", "prompt_tokens": 7, "completion_tokens": 2, "ended_at": NOW, **fields,
    }  # fmt: skip


def rows(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    answer = client.get("/usage", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class TestCollecting:
    """By the API's own process, and over the end of one."""

    @pytest.fixture
    def inference_urls(self, inference: dict[str, FakeInference]) -> str:
        return ",".join(inference)

    @pytest.fixture
    def apis(self, settings: Settings, inference_urls: str, registry: Registry) -> Iterator[list[Api]]:
        with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
            patch.setenv("OSORA_INFERENCE_URLS", inference_urls)
            patch.setenv("OSORA_INTERNAL_TOKEN", settings.internal_secret)
            patch.setenv("OSORA_MAINTENANCE_SECONDS", "0.1")
            made = [Api(settings) for _ in range(2)]
            for api in made:
                stack.callback(api.kill)
            yield made

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_every_door_says_who_asks_and_which_it_is(
        self, inference: dict[str, FakeInference], client: httpx.Client, principal: Principal
    ) -> None:
        chat = {"model": "osora-tiny", "messages": [{"role": "user", "content": "Hi"}]}
        asked = {
            "/generate": {"prompt": "Hi"},
            "/v1/chat/completions": chat,
            "/v1/completions": {"model": "osora-tiny", "prompt": "Hi"},
            "/v1/responses": {"model": "osora-tiny", "input": "Hi"},
            "/v1/messages": {**chat, "max_tokens": 5},
        }
        for path, body in asked.items():
            client.post(path, json=body)
        bodies = [body for one in inference.values() for body in one.asked]
        assert {(body["tenant"], body["key"]) for body in bodies} == {(principal.tenant_id, principal.key_id)}
        assert {body["kind"] for body in bodies} == {"generate", "chat", "completions", "responses", "messages"}

    def test_what_every_server_has_recorded_is_counted_and_what_nobody_can_read_is_passed_over(
        self, inference: dict[str, FakeInference], client: httpx.Client, principal: Principal
    ) -> None:
        first, second = inference.values()
        broken = [written(principal, kind="?"), written(principal, prompt_tokens=-1), {"id": "gen-2"}]
        second.records = [written(principal)]
        eventually(lambda: second.acknowledged == 1)
        first.records = [*broken, written(principal, tenant="tenant-gone"), written(principal, kind="messages")]
        eventually(lambda: first.acknowledged == 5)
        # Segments of the same name: those of the first come later, and only what is behind the second's is new.
        found = rows(client, group_by="kind")
        assert [(row["kind"], row["requests"]) for row in found] == [("generate", 1), ("messages", 1)]

    def test_a_process_killed_between_the_sums_and_the_acknowledgement_counts_nothing_twice(
        self, fake: FakeInference, apis: list[Api], registry: Registry, principal: Principal
    ) -> None:
        def counted() -> int:
            with registry.reading() as session:
                return usage.spent(session, principal.tenant_id, since=NOW - DAY).requests

        api, beside = apis
        fake.may_acknowledge = False
        fake.records = [written(principal)] * 5
        api.start()
        assert fake.deaf.wait(60)
        api.kill()
        assert (counted(), fake.acknowledged) == (2, 0)
        fake.may_acknowledge = True
        api.start()
        beside.start()
        eventually(lambda: fake.acknowledged == 5)
        assert counted() == 5


@pytest.fixture
def used(registry: Registry, principal: Principal) -> Registry:
    put(
        registry,
        generated(1, principal, ended_at=NOW - DAY),
        generated(2, principal, adapter_id="adp-1"),
        generated(3, principal, kind="generate", key_id="key-gone"),
    )
    return registry


@pytest.mark.parametrize(
    ("group_by", "requests"),
    [(["day"], [1, 2]), (["model"], [2, 1]), (["kind"], [2, 1]), (["key"], [2, 1]), (["tenant"], [3]),
     (["day", "model"], [1, 1, 1]), (["model", "day"], [1, 1, 1])],
)  # fmt: skip
def test_sums_by_anything_in_pages_and_whole(
    used: Registry, client: httpx.Client, principal: Principal, group_by: list[str], requests: list[int]
) -> None:
    whole = rows(client, group_by=group_by)
    assert sorted((row["requests"] for row in whole), reverse=True) == sorted(requests, reverse=True)
    assert sum(row["prompt_tokens"] for row in whole) == 30
    paged: list[dict[str, Any]] = []
    while True:
        after = {"after": paged[-1]["id"]} if paged else {}
        page = client.get("/usage", params={"group_by": group_by, "limit": 1, **after}).json()
        paged += page["data"]
        if not page["has_more"]:
            break
    assert paged == whole
    if group_by == ["key"]:
        assert {row["key_id"]: row["key_name"] for row in whole} == {principal.key_id: "test", "key-gone": None}


def test_days_are_chosen_and_both_ends_are_in(used: Registry, client: httpx.Client) -> None:
    yesterday = str(TODAY - timedelta(days=1))
    assert [row["day"] for row in rows(client)] == [yesterday, str(TODAY)]
    assert [row["day"] for row in rows(client, until=yesterday)] == [yesterday]
    assert [row["day"] for row in rows(client, since=str(TODAY))] == [str(TODAY)]
    refused = client.get("/usage", params={"since": "2026-02-02", "until": "2026-01-01"})
    assert error_of(refused, 400)["param"] == "since"
    assert rows(client, until="0001-01-01") == []


def test_a_place_that_is_none_is_refused(client: httpx.Client) -> None:
    said = [
        base64.urlsafe_b64encode(text.encode()).decode() for text in ("[]", '["a"]', "[1e99]", "[" + "9" * 30 + "]")
    ]
    for after in ("x", "é", "[" * 4000, *said):
        assert error_of(client.get("/usage", params={"after": after}), 400)["param"] == "after"


def test_a_tenant_sees_its_own_and_an_operator_all(
    used: Registry, client: httpx.Client, client_with: Callable[..., httpx.Client], stranger: Principal
) -> None:
    put(used, generated(1, stranger))
    submit(used, stranger)
    by_tenant = {row["tenant"]: row["requests"] for row in rows(client, group_by="tenant")}
    assert by_tenant == {"default": 3, "stranger": 1}
    assert [row["requests"] for row in rows(client, tenant="stranger")] == [1]
    reader = client_with("read", tenant="stranger")
    assert [row["requests"] for row in rows(reader)] == [1]
    assert [row["tenant"] for row in rows(reader, group_by="tenant", tenant="stranger")] == ["stranger"]
    stored = reader.get("/usage/storage").json()
    assert stored["total"] == stored["files"] > 0
    assert client.get("/usage/storage").json()["total"] == 0
    assert client.get("/usage/storage", params={"tenant": "stranger"}).json() == stored
    for path in ("/usage", "/usage/storage"):
        error_of(reader.get(path, params={"tenant": "default"}), 403)
    error_of(client.get("/usage/storage", params={"tenant": "nobody"}), 404)


def test_a_table_that_a_spreadsheet_may_open(
    registry: Registry, client: httpx.Client, client_with: Callable[..., httpx.Client]
) -> None:
    with registry.transaction() as session:
        key, _ = create_key(session, "default", '=HYPERLINK("http://evil.example","click")', ["read"])
    owner = Principal(key.tenant_id, "default", key.id, frozenset())
    put(registry, generated(1, owner), generated(2, owner, base="-2+3"))
    answer = client.get("/usage", params={"group_by": ["key", "model"]}, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert "usage.csv" in answer.headers["content-disposition"]
    assert client.get("/usage", params={"group_by": ["key", "model"], "format": "csv"}).text == answer.text
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["key_name"], row["base"]) for row in table] == [
        (f"'{key.name}", "'-2+3"),
        (f"'{key.name}", "osora-tiny"),
    ]
    assert (table[0]["key_id"], table[0]["requests"], table[0]["day"]) == (key.id, "1", "")
    reader = client_with("read", tenant="other")
    refused = reader.get("/usage", params={"tenant": "default", "format": "csv"})
    error_of(refused, 403)
    assert reader.get("/usage", params={"format": "csv"}).text.count("\n") == 1
