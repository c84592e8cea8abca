"""Tenants: made by an operator, shut out and let in again."""

from collections.abc import Callable

import httpx
import pytest

from registry.context import Registry
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


def test_the_life_of_a_tenant(client: httpx.Client) -> None:
    made = client.post("/tenants", json={"name": "acme"}).json()
    assert (made["name"], made["suspended_at"], made["object"]) == ("acme", None, "tenant")
    assert error_of(client.post("/tenants", json={"name": "acme"}), 409)["code"] == "tenant_exists"
    assert client.get("/tenants/acme").json() == client.get(f"/tenants/{made['id']}").json() == made
    assert [row["name"] for row in client.get("/tenants").json()["data"]] == ["acme", "default"]
    page = client.get("/tenants?limit=1").json()
    assert client.get(f"/tenants?after={page['last_id']}").json()["data"][0]["name"] == "default"
    key = client.post("/keys", json={"name": "k", "tenant": "acme", "scopes": ["admin"]}).json()["key"]
    headers = {"authorization": f"Bearer {key}"}
    assert client.get("/jobs", headers=headers).status_code == 200
    assert client.post("/tenants/acme/suspend").json()["suspended_at"]
    for method, path in (("GET", "/jobs"), ("POST", "/generate"), ("GET", "/keys"), ("GET", "/v1/models")):
        error = error_of(client.request(method, path, headers=headers), 403)
        assert (error["code"], error["type"]) == ("tenant_suspended", "permission_error")
        assert "'acme' is suspended" in error["message"]
    assert client.post("/tenants/acme/resume").json() == made
    assert client.get("/jobs", headers=headers).status_code == 200
    recorded = client.get(f"/audit?target={made['id']}").json()["data"]
    assert [record["action"] for record in recorded] == ["tenant.resumed", "tenant.suspended", "tenant.created"]


@pytest.mark.parametrize("name", ["", "A B", "a:b", "tenant-1", "a" * 64, "a\u0000"])
def test_names_that_are_refused(client: httpx.Client, name: str) -> None:
    assert error_of(client.post("/tenants", json={"name": name}), 400)["param"] == "name"


def test_an_operator_does_not_shut_itself_out(client: httpx.Client) -> None:
    assert error_of(client.post("/tenants/default/suspend"), 409)["code"] == "own_tenant"
    assert client.get("/jobs").status_code == 200


def test_who_is_no_operator_does_not_learn_of_tenants(client_with: Callable[..., httpx.Client]) -> None:
    admin = client_with("admin", tenant="acme")
    for path in ("/tenants", "/tenants/acme", "/tenants/default", "/tenants/nobody"):
        assert "'operator'" in error_of(admin.get(path), 403)["message"]


def test_an_unknown_tenant(client: httpx.Client) -> None:
    for method, path in (("GET", ""), ("POST", "/suspend"), ("POST", "/resume")):
        error = error_of(client.request(method, f"/tenants/nobody{path}"), 404)
        assert (error["code"], error["param"]) == ("tenant_not_found", "tenant")


def test_deletion(
    client: httpx.Client, registry: Registry, fake: FakeInference, client_with: Callable[..., httpx.Client]
) -> None:
    acme = client_with("admin", "train", tenant="acme")
    tenant = client.get("/tenants/acme").json()
    row = b'{"prompt": "a", "completion": "b"}\n'
    file = acme.post("/files", data={"purpose": "fine-tune"}, files={"file": ("f.jsonl", row)}).json()
    job = acme.post("/jobs", json={"model": "osora-tiny", "training_file": file["id"]}).json()
    fake.held = ["adp-of-acme"]
    for query, status, code in (
        ("", 400, "missing_field"),
        ("?confirm=acne", 400, "not_confirmed"),
        ("?confirm=acme", 409, "live_jobs"),
    ):
        error = error_of(client.delete(f"/tenants/acme{query}"), status)
        assert error["code"] == code, error
    assert job["id"] in error["message"]
    error_of(acme.delete("/tenants/acme?confirm=acme&cancel_jobs=true"), 403)
    answer = client.delete("/tenants/acme?confirm=acme&cancel_jobs=true")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "id": tenant["id"],
        "object": "tenant",
        "deleted": True,
        "cancelled_jobs": [job["id"]],
    }
    error_of(client.get("/tenants/acme"), 404)
    error_of(acme.get("/files"), 401)
    assert [*registry.store.list("")] == []
    assert fake.forgot.wait(60)
    found = client.get("/audit", params={"tenant": tenant["id"], "action": "tenant"}).json()["data"]
    assert [record["action"] for record in found] == ["tenant.deleted", "tenant.erasing"]
    assert found[0]["address"] == "127.0.0.1"
    assert found[1]["facts"] == {"name": "acme", "live_jobs": [job["id"]]}
