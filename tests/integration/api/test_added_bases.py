"""Bases that are added through the API: who may, who sees what, and what inference servers are told."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from registry import jobs
from registry.added_bases import preparing
from registry.context import Registry
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.support.jobs import claim, new_adapter, submit

SECRET = "/srv/private/models/second"


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return ",".join(inference)


def one(client: httpx.Client, name: str = "second") -> dict[str, Any]:
    (found,) = [base for base in client.get("/bases").json()["data"] if base["name"] == name]
    return dict(found)


def prepare(registry: Registry, problem: str | None = None) -> None:
    with registry.transaction() as session:
        held = preparing.claim(session, "worker-1", 60)
        assert held is not None
        if problem is not None:
            assert preparing.fail(session, held, problem, "correct the path")
        else:
            assert preparing.finish(session, held, {"family": "llama", "parameters": 7})


def test_a_base_is_added_seen_coming_and_removed(client: httpx.Client, registry: Registry) -> None:
    added = client.post("/bases", json={"name": "second", "source": SECRET})
    assert added.status_code == 200, added.text
    assert (added.json()["state"], added.json()["added"], added.json()["loaded"]) == ("waiting", True, False)
    assert error_of(client.post("/bases", json={"name": "second"}), 400)["param"] == "source"
    again = error_of(client.post("/bases", json={"name": "second", "source": SECRET}), 409)
    assert again["code"] == "base_exists"
    assert "second" not in [model["id"] for model in client.get("/v1/models").json()["data"]]
    prepare(registry)
    assert (one(client)["state"], one(client)["family"], one(client)["parameters"]) == ("ready", "llama", 7)
    assert "second" in [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert client.get("/v1/models/second").json()["object"] == "model"
    removal = client.delete("/bases/second").json()
    assert removal == {
        "name": "second", "object": "base", "deleted": True,
        "adapters": 0, "imported_adapters": 0, "checkpoints": 0, "aliases": 0,
    }  # fmt: skip
    assert error_of(client.delete("/bases/second"), 404)["code"] == "base_not_found"
    assert error_of(client.get("/v1/models/second"), 404)["code"] == "model_not_found"


def test_tenants_may_not_and_do_not_see_where_a_base_lies(
    client: httpx.Client, client_with: Callable[..., httpx.Client], anonymous: httpx.Client, registry: Registry
) -> None:
    body = {"name": "second", "source": SECRET}
    for scopes in (("read", "train", "generate"), ("admin",)):
        tenant = client_with(*scopes, tenant="acme")
        assert error_of(tenant.post("/bases", json=body), 403)["code"] == "insufficient_scope"
        assert error_of(tenant.delete("/bases/osora-tiny"), 403)["code"] == "insufficient_scope"
    error_of(anonymous.post("/bases", json=body), 401)
    assert client.post("/bases", json=body).status_code == 200
    prepare(registry, f"there is nothing at {SECRET}")
    assert (one(client)["source"], one(client)["problem"]) == (SECRET, f"there is nothing at {SECRET}")
    seen = client_with("read", tenant="acme").get("/bases")
    assert SECRET not in seen.text
    assert [(base["name"], base["state"]) for base in seen.json()["data"]][-1] == ("second", "failed")


def test_the_same_request_sent_twice_adds_once(client: httpx.Client) -> None:
    headers = {"idempotency-key": "once"}
    answers = [client.post("/bases", json={"name": "a", "source": SECRET}, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["a--b", "a/b", "x" * 64, "a\u0000b", "", "../x"])
def test_names_are_refused_in_a_sentence(client: httpx.Client, name: str) -> None:
    error = error_of(client.post("/bases", json={"name": name, "source": SECRET}), 400)
    assert error["param"] == "name"


def test_a_base_of_the_settings_stays(client: httpx.Client) -> None:
    assert error_of(client.delete("/bases/osora-tiny"), 409)["code"] == "base_configured"


def test_a_job_keeps_its_base(client: httpx.Client, registry: Registry, principal: Principal) -> None:
    client.post("/bases", json={"name": "second", "source": SECRET})
    prepare(registry)
    job = submit(registry, principal, base="second")
    error = error_of(client.delete("/bases/second", params={"leave_adapters": True}), 409)
    assert (error["code"], "1 queued" in error["message"]) == ("base_in_use", True)
    client.post(f"/jobs/{job.id}/cancel")
    assert client.delete("/bases/second").status_code == 200


def test_every_inference_server_is_told_what_came_and_what_went(
    client: httpx.Client, registry: Registry, inference: dict[str, FakeInference]
) -> None:
    for fake in inference.values():
        fake.added["stale"] = {"name": "stale", "id": "base-stale", "loaded": True, "problem": None}
    client.post("/bases", json={"name": "second", "source": SECRET})
    prepare(registry)
    for fake in inference.values():
        wait(fake, lambda fake=fake: list(fake.added) == ["second"])
        assert fake.added["second"]["source"] == SECRET
    for fake in inference.values():  # as a server does that was started again
        fake.added.clear()
    for fake in inference.values():
        wait(fake, lambda fake=fake: "second" in fake.added)
        fake.added["second"]["problem"] = "no memory is left"
    deadline = time.monotonic() + 60
    while one(client)["problem"] != "no memory is left":  # the API looks once a second
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.delete("/bases/second")
    for fake in inference.values():
        wait(fake, lambda fake=fake: not fake.added)


def wait(fake: FakeInference, is_so: Callable[[], bool]) -> None:
    """Until a server that is told something has become so."""
    with fake.told:
        assert fake.told.wait_for(is_so, 60), fake.added


def test_an_adapter_of_a_base_that_is_gone_says_so(
    client: httpx.Client, registry: Registry, principal: Principal
) -> None:
    client.post("/bases", json={"name": "second", "source": SECRET})
    prepare(registry)
    attempt = claim(registry, submit(registry, principal, base="second"))
    with registry.transaction() as session:
        adapter = jobs.complete(session, attempt, step=9, trained_tokens=9, adapter=new_adapter(attempt), metrics={})
    assert error_of(client.delete("/bases/second"), 409)["code"] == "base_in_use"
    removal = client.delete("/bases/second", params={"leave_adapters": True}).json()
    assert removal["adapters"] == 1
    error = error_of(client.post("/generate", json={"adapter_id": adapter.id, "prompt": "x"}), 404)
    assert (error["code"], "'second'" in error["message"]) == ("base_not_offered", True)
    assert client.get(f"/v1/models/{adapter.name}").status_code == 200
    assert client.delete(f"/v1/models/{adapter.name}").status_code == 200
