"""Aliases over HTTP, and wherever a model's name is taken, through both doors."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import openai as package
import pytest
from openai import OpenAI

from registry import jobs
from registry.context import Registry
from registry.models import Adapter
from registry.tenants import Principal
from tests.integration.api.conftest import ZIP, error_of
from tests.integration.api.fake_inference import FakeInference
from tests.support.jobs import claim, new_adapter, submit, upload

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NAME = "ft:gpt-4o-mini-2024-07-18:acme::AbC12345"
SLASHED = "acme/triage"
MESSAGES: Any = [{"role": "user", "content": "I was charged twice."}]


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


@pytest.fixture
def openai(url: str, client: httpx.Client) -> Iterator[OpenAI]:
    key = client.headers["authorization"].removeprefix("Bearer ")
    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60) as openai:
        yield openai


@pytest.fixture
def successor(registry: Registry, principal: Principal) -> Adapter:
    """Another adapter."""
    attempt = claim(registry, submit(registry, principal, suffix="better"))
    with registry.transaction() as session:
        return jobs.complete(session, attempt, step=9, trained_tokens=9, adapter=new_adapter(attempt), metrics={})


def put(client: httpx.Client, name: str, *targets: str, **more: Any) -> dict[str, Any]:
    asked = {"target": targets[0]} if len(targets) == 1 else {"targets": dict.fromkeys(targets, 1)}
    response = client.post("/aliases", json={"name": name, **asked, **more})
    assert response.status_code == 200, response.text
    alias: dict[str, Any] = response.json()
    return alias


def test_from_making_to_deletion(client: httpx.Client, adapter: Adapter, successor: Adapter) -> None:
    made = put(client, NAME, adapter.id)
    assert (made["object"], made["name"], made["targets"], made["version"]) == ("alias", NAME, {adapter.name: 1}, 1)
    assert made["created_at"] == made["updated_at"]
    assert client.get(f"/aliases/{NAME}").json() == made
    split = client.post("/aliases", json={"name": NAME, "targets": {adapter.name: 95, successor.name: 5}}).json()
    assert (split["targets"], split["version"]) == ({adapter.name: 95, successor.name: 5}, 2)
    assert client.get("/aliases").json()["data"] == [split]
    back = client.post(f"/aliases/{NAME}/rollback").json()
    assert (back["targets"], back["version"]) == ({adapter.name: 1}, 3)
    again = client.post(f"/aliases/{NAME}/rollback", json={"version": 2, "expected_version": 3}).json()
    assert again["targets"] == split["targets"]
    history = client.get(f"/aliases/{NAME}/history").json()
    assert [(row["version"], row["restored"]) for row in history["data"]] == [(4, 2), (3, 1), (2, None), (1, None)]
    assert {row["key_name"] for row in history["data"]} == {"test"}
    assert client.delete(f"/aliases/{NAME}").json() == {"id": NAME, "object": "alias", "deleted": True}
    assert error_of(client.get(f"/aliases/{NAME}"), 404)["code"] == "alias_not_found"
    assert client.get(f"/adapters/{adapter.id}").status_code == 200, "what it stood for stays"


def test_a_roll_back_that_is_sent_again_is_one(client: httpx.Client, adapter: Adapter, successor: Adapter) -> None:
    for target in (adapter, successor):
        put(client, "triage", target.id)
    headers = {"idempotency-key": "back"}
    first, again = (client.post("/aliases/triage/rollback", headers=headers).json() for _ in range(2))
    assert first == again == client.get("/aliases/triage").json()
    assert first["targets"] == {adapter.name: 1}


def test_a_name_with_a_slash(client: httpx.Client, adapter: Adapter) -> None:
    put(client, SLASHED, adapter.id)
    for name in (SLASHED, quote(SLASHED, safe="")):
        assert client.get(f"/aliases/{name}").json()["name"] == SLASHED
        assert client.get(f"/aliases/{name}/history").status_code == 200
        assert client.get(f"/adapters/{name}").json()["id"] == adapter.id
        assert client.get(f"/v1/models/{name}").json()["id"] == SLASHED


def test_pages(client: httpx.Client, adapter: Adapter) -> None:
    for name in ("a", "b", "c"):
        put(client, name, adapter.id)
    first = client.get("/aliases?limit=2&order=asc").json()
    assert ([alias["name"] for alias in first["data"]], first["has_more"]) == (["a", "b"], True)
    rest = client.get(f"/aliases?order=asc&after={first['last_id']}").json()
    assert [alias["name"] for alias in rest["data"]] == ["c"]


def test_what_is_refused_says_why(client: httpx.Client, adapter: Adapter, successor: Adapter) -> None:
    put(client, "triage", adapter.id)
    many = {f"m{number}": 1 for number in range(11)}
    cases: list[tuple[dict[str, Any], int, str | None, str]] = [
        ({"name": "x"}, 400, None, "target"),
        ({"name": "x", "target": adapter.id, "targets": {adapter.id: 1}}, 400, None, "targets"),
        ({"name": "x", "targets": {}}, 400, "targets", "at least 1"),
        ({"name": "x", "targets": many}, 400, "targets", "at most 10"),
        ({"name": "x", "targets": {adapter.id: 0}}, 400, f"targets.{adapter.id}", "0"),
        ({"name": "x", "targets": {adapter.id: 1.5}}, 400, f"targets.{adapter.id}", "1.5"),
        ({"name": "x", "targets": {adapter.id: True}}, 400, f"targets.{adapter.id}", "true"),
        ({"name": "x", "targets": {adapter.id: 1, adapter.name: 1}}, 400, "targets", "same model"),
        ({"name": "x", "target": "nothing"}, 404, "targets", "nothing"),
        ({"name": "x", "target": "triage"}, 400, "targets", "alias itself"),
        ({"name": "", "target": adapter.id}, 400, "name", "cannot be the name"),
        ({"name": "a/history", "target": adapter.id}, 400, "name", "history"),
        ({"name": "osora-tiny", "target": adapter.id}, 409, "name", "name of a base"),
        ({"name": adapter.name, "target": successor.id}, 409, "name", "name of a model"),
        ({"name": "triage", "target": successor.id, "expected_version": 7}, 409, "expected_version", "version 1"),
    ]
    for body, status, param, word in cases:
        error = error_of(client.post("/aliases", json=body), status)
        assert error["param"] == param, error
        assert word in error["message"] + str(error.get("next_action")), error
    assert client.get("/aliases/triage").json()["version"] == 1
    error = error_of(client.delete("/adapters/triage"), 404)
    assert error["message"] == "'triage' is an alias, not an adapter"
    assert "DELETE /aliases/triage" in error["next_action"]
    error = error_of(client.delete(f"/adapters/{adapter.id}"), 409)
    assert (error["code"], "'triage'" in error["message"]) == ("adapter_in_use", True)


def test_keys_and_tenants(client: httpx.Client, client_with: Callable[..., httpx.Client], adapter: Adapter) -> None:
    put(client, "triage", adapter.id)
    reader, stranger = client_with("read"), client_with("read", "train", "generate", tenant="stranger")
    assert reader.get("/aliases/triage").status_code == 200
    body = {"name": "triage", "target": adapter.id}
    for response in (
        reader.post("/aliases", json=body),
        reader.post("/aliases/triage/rollback"),
        reader.delete("/aliases/triage"),
        reader.delete("/v1/models/triage"),
    ):
        error_of(response, 403)
    for response in (
        stranger.get("/aliases/triage"),
        stranger.get("/aliases/triage/history"),
        stranger.post("/aliases/triage/rollback"),
        stranger.delete("/aliases/triage"),
        stranger.post("/aliases", json=body),
        stranger.post("/generate", json={"adapter_id": "triage", "prompt": "x"}),
        stranger.get("/v1/models/triage"),
    ):
        error_of(response, 404)
    assert stranger.get("/aliases").json()["data"] == []


class TestCalls:
    def test_each_way_to_ask_takes_one(
        self, client: httpx.Client, openai: OpenAI, fake: FakeInference, adapter: Adapter
    ) -> None:
        put(client, NAME, adapter.id)
        client.post("/generate", json={"adapter_id": NAME, "prompt": "x", "strength": 0.5}).raise_for_status()
        answer = openai.chat.completions.create(model=NAME, messages=MESSAGES)
        assert answer.model == NAME, "who asks by a name reads that name"
        chunks = list(openai.chat.completions.create(model=NAME, messages=MESSAGES, stream=True))
        assert {chunk.model for chunk in chunks} == {NAME}
        assert openai.completions.create(model=NAME, prompt="x").model == NAME
        assert len(fake.asked) == 4
        for asked in fake.asked:
            assert (asked["adapter"]["id"], asked["adapter"]["name"]) == (adapter.id, adapter.name)
            assert (asked["alias"], asked["base"]) == (NAME, "osora-tiny")
            assert "user" not in asked

    def test_of_a_base(self, client: httpx.Client, openai: OpenAI, fake: FakeInference) -> None:
        put(client, "gpt-4o-mini", "osora-tiny")
        openai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        client.post("/generate", json={"adapter_id": "gpt-4o-mini", "prompt": "x"}).raise_for_status()
        for asked in fake.asked:
            assert (asked["adapter"], asked["base"], asked["alias"]) == (None, "osora-tiny", "gpt-4o-mini")

    def test_the_next_request_goes_where_it_was_moved(
        self, client: httpx.Client, openai: OpenAI, fake: FakeInference, adapter: Adapter, successor: Adapter
    ) -> None:
        for target in (adapter, successor):
            put(client, "triage", target.id)
            openai.chat.completions.create(model="triage", messages=MESSAGES)
            assert fake.asked[-1]["adapter"]["id"] == target.id
        client.post("/aliases/triage/rollback").raise_for_status()
        openai.chat.completions.create(model="triage", messages=MESSAGES)
        assert fake.asked[-1]["adapter"]["id"] == adapter.id

    def test_a_user_stays_whatever_is_asked(
        self, client: httpx.Client, openai: OpenAI, fake: FakeInference, adapter: Adapter, successor: Adapter
    ) -> None:
        """By `safety_identifier`, else `user`, else `prompt_cache_key`; the native door knows `user`."""
        put(client, "triage", adapter.id, successor.id)
        both = {adapter.id, successor.id}
        first: list[str] = []

        def answering(send: Callable[[str, Any], object]) -> list[str]:
            fake.asked.clear()
            answered: list[str] = []
            for number in range(len(first) or 100):
                send(f"user-{number}", [{"role": "user", "content": f"{number} {id(send)}"}])
                answered.append(fake.asked[-1]["adapter"]["id"])
                if not first and number >= 11 and set(answered) == both:
                    break
            return answered

        chat = openai.chat.completions.create
        first = answering(lambda user, said: chat(model="triage", messages=said, user=user))
        assert set(first) == both
        ways = [
            answering(lambda user, said: chat(model="triage", messages=said, prompt_cache_key=user)),
            answering(lambda user, said: chat(model="triage", messages=said, user=user, prompt_cache_key="x")),
            answering(lambda user, said: chat(model="triage", messages=said, safety_identifier=user, user="x")),
            answering(lambda user, said: openai.completions.create(model="triage", prompt=str(said), user=user)),
            answering(
                lambda user, said: client.post(
                    "/generate", json={"adapter_id": "triage", "messages": said, "user": user}
                ).raise_for_status()
            ),
        ]
        assert all(way == first for way in ways)

    def test_a_request_that_is_sent_again_goes_to_the_same(
        self, url: str, client: httpx.Client, fake: FakeInference, adapter: Adapter, successor: Adapter
    ) -> None:
        """OpenAI's client sends no id; what it sends again is the same body."""
        put(client, "triage", adapter.id, successor.id)
        both = {adapter.id, successor.id}  # of which each is as likely: seldom, one has the first dozen for itself
        key = client.headers["authorization"].removeprefix("Bearer ")
        fake.mood = "busy"
        answering: list[str] = []
        with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=1, timeout=60) as openai:
            openai = openai.with_options(max_retries=1)
            openai._calculate_retry_timeout = lambda *_, **__: 0  # type: ignore[method-assign,assignment]
            for number in range(100):
                fake.asked.clear()
                with pytest.raises(package.InternalServerError):
                    openai.completions.create(model="triage", prompt=f"number {number}")
                first, second = (asked["adapter"]["id"] for asked in fake.asked)
                assert first == second
                answering.append(first)
                if number >= 7 and set(answering) == both:
                    break
        assert set(answering) == both
        fake.mood = "fine"
        fake.asked.clear()
        by_id: list[str] = []
        for number in range(100):
            for prompt in ("x", "y"):
                body = {"adapter_id": "triage", "prompt": prompt}
                headers = {"x-request-id": f"order-{number}"}
                client.post("/generate", json=body, headers=headers).raise_for_status()
            by_id = [asked["adapter"]["id"] for asked in fake.asked]
            if number >= 11 and set(by_id) == both:
                break
        assert by_id[::2] == by_id[1::2], "an id that the client chose counts more than what it says"
        assert set(by_id) == both

    def test_a_base_that_is_gone_is_named(self, client: httpx.Client, openai: OpenAI, registry: Registry) -> None:
        put(client, "triage", "osora-tiny")
        with registry.transaction() as session:
            session.connection().exec_driver_sql("UPDATE alias_targets SET target = 'older', name = 'older'")
        with pytest.raises(package.NotFoundError, match="'triage' stands for the base 'older'") as caught:
            openai.chat.completions.create(model="triage", messages=MESSAGES)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


class TestOtherPlaces:
    def test_adapters_and_downloads(
        self, client: httpx.Client, fake: FakeInference, adapter: Adapter, successor: Adapter
    ) -> None:
        put(client, NAME, adapter.id)
        assert client.get(f"/adapters/{NAME}").json()["name"] == adapter.name
        assert client.get(f"/adapters/{NAME}/download").content == ZIP
        assert client.get(f"/adapters/{NAME}/download?format=lora").content == b"exported"
        assert fake.asked[-1]["adapter"]["id"] == adapter.id
        error_of(client.delete(f"/adapters/{NAME}"), 404)
        put(client, "both", adapter.id, successor.id)
        put(client, "bare", "osora-tiny")
        error = error_of(client.get("/adapters/both/download"), 400)
        assert (error["code"], adapter.name in error["message"]) == ("alias_of_several", True)
        error_of(client.get("/adapters/bare"), 404)

    def test_jobs(self, client: httpx.Client, registry: Registry, principal: Principal, adapter: Adapter) -> None:
        put(client, NAME, adapter.id)
        put(client, "triage", adapter.id)
        body = {"training_file": upload(registry, principal).id}
        for asked in ({"model": NAME}, {"model": "triage"}, {"model": "osora-tiny", "osora": {"from_adapter": NAME}}):
            job = client.post("/jobs", json={**body, **asked}).json()
            assert job["model"] == "osora-tiny"
            assert job["osora"]["settings"]["from_adapter"] == adapter.name

    def test_models(self, client: httpx.Client, openai: OpenAI, adapter: Adapter) -> None:
        put(client, NAME, adapter.id)
        assert [model.id for model in openai.models.list()] == ["osora-tiny", NAME, adapter.name]
        model = openai.models.retrieve(NAME)
        assert (model.id, model.object, model.owned_by) == (NAME, "model", "default")
        with pytest.raises(package.ConflictError, match="alias"):
            openai.models.delete(adapter.name)
        deleted = openai.models.delete(NAME)
        assert (deleted.id, deleted.object, deleted.deleted) == (NAME, "model", True)
        with pytest.raises(package.NotFoundError):
            openai.models.retrieve(NAME)
        assert openai.models.retrieve(adapter.name).id == adapter.name
        assert client.post(f"/aliases/{NAME}/rollback").json()["targets"] == {adapter.name: 1}
