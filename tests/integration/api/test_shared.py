"""What tenants share without seeing it: memory of requests and of files, names, and the way to a model.

Nothing here is found or moved by another tenant, though it says and sends the very same.
"""

from collections.abc import Iterator

import httpx
import pytest

from registry.context import Registry
from registry.settings import Settings
from tests.integration.api.fake_inference import FakeInference, measured
from tests.support.estate import Estate, build

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ROWS = b'{"prompt": "I was charged twice.", "completion": " billing"}\n' * 3


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhooks_allow_private": True})


@pytest.fixture
def estates(registry: Registry) -> tuple[Estate, Estate]:
    return build(registry, "north"), build(registry, "south")


@pytest.fixture
def clients(
    url: str, registry: Registry, estates: tuple[Estate, Estate]
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    keys = [estate.key(registry, "admin") for estate in estates]
    with (
        httpx.Client(base_url=url, timeout=60, headers={"authorization": f"Bearer {keys[0]}"}) as north,
        httpx.Client(base_url=url, timeout=60, headers={"authorization": f"Bearer {keys[1]}"}) as south,
    ):
        yield north, south


def test_the_same_request_of_another_tenant_is_another_one(
    clients: tuple[httpx.Client, httpx.Client], estates: tuple[Estate, Estate]
) -> None:
    """The same body under the same Idempotency-Key, and as a client's own retry."""
    for headers in ({"idempotency-key": "the-same"}, {"x-stainless-retry-count": "1"}):
        made = []
        for client in clients:
            sent = {"data": {"purpose": "fine-tune"}, "files": {"file": ("a.jsonl", ROWS)}}
            file = client.post("/files", **sent, headers=headers).raise_for_status().json()["id"]
            upload = {"filename": "a", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/jsonl"}
            begun = (
                client.post("/uploads", json=upload, headers={**headers, "idempotency-key": "its upload"})
                .raise_for_status()
                .json()["id"]
            )
            made.append((file, begun))
            assert client.get(f"/files/{file}").status_code == client.get(f"/uploads/{begun}").status_code == 200
        assert not set(made[0]) & set(made[1])
        for client, others in zip(clients, reversed(made), strict=True):
            assert client.get(f"/files/{others[0]}").status_code == 404
            assert client.get(f"/uploads/{others[1]}").status_code == 404


def test_the_same_file_of_another_tenant_is_measured_for_itself(
    clients: tuple[httpx.Client, httpx.Client], estates: tuple[Estate, Estate], fake: FakeInference
) -> None:
    """Neither the answer nor how fast it comes tells that somebody else has it too."""
    fake.measure = measured(3)
    for client in clients:
        sent = {"data": {"purpose": "fine-tune"}, "files": {"file": ("a.jsonl", ROWS)}}
        file = client.post("/files", **sent).raise_for_status().json()["id"]
        assert client.get(f"/files/{file}/report?base=osora-tiny").raise_for_status().json()
    asked = [(body["tenant"], body["object_key"]) for body in fake.asked if "rows" in body]
    assert [tenant for tenant, _ in asked] == [estate.principal.tenant_id for estate in estates]
    assert all(tenant in key for tenant, key in asked)


def test_a_name_means_each_tenants_own(
    clients: tuple[httpx.Client, httpx.Client], estates: tuple[Estate, Estate], fake: FakeInference
) -> None:
    """An alias of the same name, and the same `user`, through every door; then aliases named after another's models."""
    for client, estate in zip(clients, estates, strict=True):
        alias = {"name": "triage", "target": estate.ids["adapter"]}
        client.post("/aliases", json=alias).raise_for_status()
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
    doors = {
        "/generate": {"adapter_id": "triage", **chat, "user": "the-same"},
        "/v1/chat/completions": {"model": "triage", **chat, "user": "the-same"},
        "/v1/responses": {"model": "triage", "input": "x", "user": "the-same"},
        "/v1/messages": {"model": "triage", **chat, "metadata": {"user_id": "the-same"}},
    }
    for path, body in doors.items():
        for client, estate in zip(clients, estates, strict=True):
            fake.asked.clear()
            client.post(path, json=body).raise_for_status()
            assert fake.asked[0]["adapter"]["id"] == estate.ids["adapter"], path

    north, south = clients
    theirs, own = estates[0].ids, estates[1].ids
    for name in (theirs["adapter_name"], theirs["adapter"], theirs["checkpoint_name"], theirs["alias"]):
        south.post("/aliases", json={"name": name, "target": own["adapter"]})  # taken or refused: both are well
        for client, expected in ((north, theirs), (south, own)):
            fake.asked.clear()
            client.post("/generate", json={"adapter_id": name, "prompt": "x"})
            reached = {body["adapter"]["id"] for body in fake.asked}
            assert reached <= {expected["adapter"], expected["checkpoint"]}, name
            assert client is south or reached, name


def test_an_adapter_is_fetched_by_what_it_is(
    clients: tuple[httpx.Client, httpx.Client], estates: tuple[Estate, Estate], fake: FakeInference
) -> None:
    """An inference server keeps adapters by id, version and hash, which no tenant chooses."""
    for client, estate in zip(clients, estates, strict=True):
        fake.asked.clear()
        client.post("/generate", json={"adapter_id": estate.ids["adapter_name"], "prompt": "x"}).raise_for_status()
        (body,) = fake.asked
        assert body["adapter"]["object_key"] in estate.object_keys
        assert len(body["adapter"]["sha256"]) == 64
