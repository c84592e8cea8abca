"""The audit log over HTTP: what is recorded, and who may read it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api import refusals
from api.server import Server
from registry import audit_log
from registry.context import Registry
from registry.models import Adapter
from registry.tenants import Principal
from tests.integration.api.conftest import error_of

ROWS = b'{"prompt": "a", "completion": "b"}\n' * 2


def actions(client: httpx.Client, **query: Any) -> list[str]:
    response = client.get("/audit", params={"limit": 100, **query})
    assert response.status_code == 200, response.text
    return [record["action"] for record in response.json()["data"]]


def upload(client: httpx.Client) -> str:
    answer = client.post("/files", data={"purpose": "fine-tune"}, files={"file": ("f.jsonl", ROWS)})
    assert answer.status_code == 200, answer.text
    file_id: str = answer.json()["id"]
    return file_id


def test_what_is_recorded(client: httpx.Client, adapter: Adapter) -> None:
    file_id = upload(client)
    assert client.get(f"/files/{file_id}/content").content == ROWS
    assert client.delete(f"/files/{file_id}").status_code == 200
    assert client.get(f"/adapters/{adapter.id}/download").status_code == 200
    etag = f'"{adapter.sha256}"'
    assert client.get(f"/adapters/{adapter.id}/download", headers={"if-none-match": etag}).status_code == 304
    client.post("/aliases", json={"name": "triage", "targets": {adapter.id: 1}}).raise_for_status()
    assert client.delete(f"/adapters/{adapter.id}").status_code == 409  # not done, so not recorded
    client.delete("/aliases/triage").raise_for_status()
    client.post("/aliases/triage/rollback").raise_for_status()
    client.delete("/aliases/triage").raise_for_status()
    client.delete(f"/adapters/{adapter.id}").raise_for_status()
    key = client.post("/keys", json={"name": "k", "scopes": ["read"]}).json()
    client.delete(f"/keys/{key['id']}").raise_for_status()
    assert actions(client, order="asc") == [
        "file.downloaded",
        "file.deleted",
        "adapter.downloaded",
        "alias.set",
        "alias.deleted",
        "alias.rolled_back",
        "alias.deleted",
        "adapter.deleted",
        "key.created",
        "key.revoked",
    ]
    assert actions(client, target=file_id) == ["file.deleted", "file.downloaded"]
    assert actions(client, action="key", order="asc") == ["key.created", "key.revoked"]
    assert actions(client, action="alias.set") == ["alias.set"]
    (newest,) = client.get("/audit", params={"limit": 1}).json()["data"]
    assert newest["target"] == {"kind": "key", "id": key["id"]}
    assert newest["actor"]["key_id"].startswith("key-")
    assert actions(client, since=newest["created_at"] + 10) == []
    assert len(actions(client, until=newest["created_at"] + 10)) == 10
    first = client.get("/audit", params={"limit": 6}).json()
    assert first["has_more"]
    rest = client.get("/audit", params={"limit": 6, "after": first["last_id"]}).json()
    assert (len(rest["data"]), rest["has_more"]) == (4, False)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_admin_reads_its_own_tenants_records(client: httpx.Client, client_with: Callable[..., httpx.Client]) -> None:
    admin = client_with("admin", tenant="acme")
    upload(client)
    theirs = client.post("/keys", json={"name": "k", "tenant": "acme", "scopes": ["read"]}).json()
    mine = client.post("/keys", json={"name": "k", "scopes": ["read"]}).json()
    (record,) = admin.get("/audit").json()["data"]
    assert (record["action"], record["target"]["id"]) == ("key.created", theirs["id"])
    assert record["address"] is None  # the operator's own
    assert actions(admin, target=mine["id"]) == []
    (hidden,) = client.get("/audit", params={"target": mine["id"]}).json()["data"]
    error_of(admin.get("/audit", params={"after": hidden["id"]}), 404)
    error_of(admin.get("/audit", params={"tenant": "default"}), 403)
    assert actions(admin, tenant="acme") == actions(client, tenant="acme") == ["key.created"]
    assert actions(client, tenant=record["tenant_id"]) == ["key.created"]
    error_of(client_with("read", "train").get("/audit"), 403)


@pytest.fixture
def by_the_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals are written down when the test says so, also if its minute is over before it has come so far."""
    monkeypatch.setattr(refusals, "SECONDS", 3600.0)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_refused_requests_are_counted_once_a_minute(
    by_the_test_alone: None,
    server: Server,
    registry: Registry,
    client_with: Callable[..., httpx.Client],
    url: str,
    principal: Principal,
) -> None:
    reader = client_with("read")
    for number in range(30):
        error_of(httpx.get(f"{url}/jobs", headers={"authorization": f"Bearer osk-wrong-{number}"}), 401)
        error_of(reader.get("/keys"), 403)
    with registry.reading() as session:
        assert audit_log.page(session, principal).data == []
    asyncio.run(server.config.app.state.services.refusals.write())
    with registry.reading() as session:
        refused = {record.action: record for record in audit_log.page(session, principal).data}
    assert sorted(refused) == ["authentication.refused", "key.refused"]
    assert {record.facts["count"] for record in refused.values()} == {30}
    assert refused["authentication.refused"].tenant_id is None
    assert refused["key.refused"].tenant_id == principal.tenant_id
