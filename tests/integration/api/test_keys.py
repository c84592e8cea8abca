"""API keys: shown once, scoped, revoked at once."""

from collections.abc import Callable

import httpx
import pytest

from tests.integration.api.conftest import error_of


def test_the_life_of_a_key(client: httpx.Client) -> None:
    response = client.post("/keys", json={"name": "triage"})
    assert response.status_code == 200
    key = response.json()
    secret = key.pop("key")
    assert secret.startswith("osk-")
    assert (key["tenant"], key["scopes"], key["name"]) == ("default", ["generate", "read", "train"], "triage")
    assert secret.endswith(key["hint"])
    listed = client.get("/keys")
    assert key in listed.json()["data"]
    assert secret not in listed.text
    headers = {"authorization": f"Bearer {secret}"}
    assert client.get("/jobs", headers=headers).status_code == 200
    deleted = client.delete(f"/keys/{key['id']}").json()
    assert deleted == {"id": key["id"], "object": "api_key", "deleted": True}
    error_of(client.get("/jobs", headers=headers), 401)
    (revoked,) = (row for row in client.get("/keys").json()["data"] if row["id"] == key["id"])
    assert revoked["revoked_at"]


def test_an_operator_manages_the_keys_of_other_tenants(client: httpx.Client) -> None:
    assert error_of(client.post("/keys", json={"name": "k", "tenant": "acme"}), 404)["param"] == "tenant"
    client.post("/tenants", json={"name": "acme"})
    key = client.post("/keys", json={"name": "k", "tenant": "acme", "scopes": ["read"]}).json()
    secret = key.pop("key")
    assert (key["tenant"], key["scopes"]) == ("acme", ["read"])
    assert key in client.get("/keys").json()["data"]
    assert client.get("/keys?tenant=acme").json()["data"] == [key]
    assert key not in client.get("/keys?tenant=default").json()["data"]
    headers = {"authorization": f"Bearer {secret}"}
    body = {"model": "osora-tiny", "training_file": "file-1"}
    error_of(client.post("/jobs", json=body, headers=headers), 403)
    assert client.delete(f"/keys/{key['id']}").json()["deleted"]
    error_of(client.get("/jobs", headers=headers), 401)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_admin_manages_the_keys_of_its_own_tenant_only(
    client: httpx.Client, client_with: Callable[..., httpx.Client]
) -> None:
    admin = client_with("admin", tenant="acme")
    key = admin.post("/keys", json={"name": "k", "scopes": ["admin"]}).json()
    assert key["tenant"] == "acme"
    assert admin.post("/keys", json={"name": "k", "tenant": "acme"}).status_code == 200
    client.post("/tenants", json={"name": "other"})
    others = client.post("/keys", json={"name": "k", "tenant": "other"}).json()
    operators = client.post("/keys", json={"name": "k", "tenant": "acme", "scopes": ["operator"]}).json()
    for response in (
        admin.post("/keys", json={"name": "k", "tenant": "other", "scopes": ["read"]}),
        admin.post("/keys", json={"name": "k", "tenant": "default", "scopes": ["admin"]}),
        admin.post("/keys", json={"name": "k", "scopes": ["operator"]}),
        admin.get("/keys?tenant=other"),
        admin.delete(f"/keys/{operators['id']}"),
    ):
        error = error_of(response, 403)
        assert "'operator'" in error["message"]
    error_of(admin.delete(f"/keys/{others['id']}"), 404)
    assert {row["tenant"] for row in admin.get("/keys").json()["data"]} == {"acme"}
    assert admin.delete(f"/keys/{key['id']}").json()["deleted"]
    assert client.get("/jobs", headers={"authorization": f"Bearer {others['key']}"}).status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "scopes": ["root"]}, "scopes[0]"),
        ({"name": "k", "scopes": ["write"]}, "scopes[0]"),
        ({"name": "k", "expires_in": 0}, "expires_in"),
        ({"name": "k", "expires_in": 10**12}, "expires_in"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "k", "tenant": "a\u0000"}, "tenant"),
    ],
)
def test_what_is_refused(client: httpx.Client, body: dict[str, object], param: str | None) -> None:
    assert error_of(client.post("/keys", json=body), 400)["param"] == param


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_key_that_expires_and_one_that_it_makes(client: httpx.Client) -> None:
    short = client.post("/keys", json={"name": "k", "scopes": ["admin"], "expires_in": 3600}).json()
    assert 3540 <= short["expires_at"] - short["created_at"] <= 3601
    headers = {"authorization": f"Bearer {short['key']}"}
    heir = client.post("/keys", json={"name": "k"}, headers=headers).json()
    assert (heir["expires_at"], heir["created_by"]) == (short["expires_at"], short["id"])
    error_of(client.post("/keys", json={"name": "k", "expires_in": 7200}, headers=headers), 403)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_unknown_key(client: httpx.Client) -> None:
    assert "key-1" in error_of(client.delete("/keys/key-1"), 404)["message"]


def test_a_key_says_who_it_is(client_with: Callable[..., httpx.Client]) -> None:
    said = client_with("read", tenant="acme").get("/keys/current").json()
    assert (said["tenant"], said["scopes"], said["name"]) == ("acme", ["read"], "test")
    assert "key" not in said
