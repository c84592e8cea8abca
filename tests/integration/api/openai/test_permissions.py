"""A model that is shared with another tenant: called by it, and nothing else, until that is taken back."""

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai as package
import pytest
from openai import AsyncOpenAI, OpenAI
from sqlalchemy import select, update

from registry import adapters, retention
from registry.added_bases.tables import AddedBase
from registry.context import Registry
from registry.models import Adapter
from registry.names.tables import Permission
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.support.jobs import claim, record_checkpoint, submit

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

MESSAGES: Any = [{"role": "user", "content": "I was charged twice."}]


class Tenant:
    """A tenant with an admin's key: plain HTTP and either of OpenAI's clients, whose answers are awaited if need be."""

    def __init__(self, http: httpx.Client, kind: Any, runner: asyncio.Runner) -> None:
        self.http = http
        key = http.headers["authorization"].removeprefix("Bearer ")
        self.openai: Any = kind(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0, timeout=60)
        self.id: str = http.get("/keys").json()["data"][0]["tenant_id"]
        self._runner = runner

    @property
    def permissions(self) -> Any:
        return self.openai.fine_tuning.checkpoints.permissions

    def __call__(self, made: Any) -> Any:
        return self._runner.run(_awaited(made)) if inspect.isawaitable(made) else made

    def every(self, made: Any) -> list[Any]:
        return list(made) if hasattr(made, "__iter__") else self._runner.run(_collected(made))

    def chat(self, model: str) -> Any:
        return self(self.openai.chat.completions.create(model=model, messages=MESSAGES))

    def models(self) -> dict[str, str]:
        return {model.id: model.owned_by for model in self.every(self.openai.models.list())}


async def _awaited(made: Any) -> Any:
    return await made


async def _collected(made: Any) -> list[Any]:
    return [item async for item in made]


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


@pytest.fixture(params=[OpenAI, AsyncOpenAI])
def tenant(request: pytest.FixtureRequest, client_with: Callable[..., httpx.Client]) -> Iterator[Callable[..., Tenant]]:
    with asyncio.Runner() as runner, ExitStack() as stack:

        def make(name: str) -> Tenant:
            made = Tenant(client_with("admin", tenant=name), request.param, runner)
            stack.callback(lambda: made(made.openai.close()))
            return made

        yield make


def test_a_shared_adapter_is_called_by_the_other_tenant_until_that_is_taken_back(
    tenant: Callable[..., Tenant], inference: dict[str, FakeInference], adapter: Adapter
) -> None:
    owner, friend, stranger = tenant("default"), tenant("friend"), tenant("stranger")
    with pytest.raises(package.NotFoundError):
        friend.chat(adapter.name)
    (given,) = owner.every(owner.permissions.create(adapter.name, project_ids=[friend.id]))
    assert (given.object, given.project_id) == ("checkpoint.permission", friend.id)
    assert time.time() - 600 < given.created_at < time.time() + 600
    (again,) = owner.every(owner.permissions.create(adapter.name, project_ids=[friend.id, friend.id]))
    assert again == given
    for model in (adapter.name, adapter.id):
        friend.chat(model)
    asked = next(iter(inference.values())).asked[-1]
    assert (asked["tenant"], asked["adapter"]["id"]) == (friend.id, adapter.id)
    assert friend.models() == {"osora-tiny": "system", adapter.name: "default"}
    assert friend(friend.openai.models.retrieve(adapter.name)).owned_by == "default"
    assert stranger.models() == {"osora-tiny": "system"}
    with pytest.raises(package.NotFoundError):
        stranger.chat(adapter.name)
    gone = owner(owner.permissions.delete(given.id, fine_tuned_model_checkpoint=adapter.name))
    assert (gone.id, gone.object, gone.deleted) == (given.id, "checkpoint.permission", True)
    with pytest.raises(package.NotFoundError):
        friend.chat(adapter.name)
    assert friend.models() == {"osora-tiny": "system"}
    owner.chat(adapter.name)


def test_nobody_puts_a_model_in_the_place_of_an_alias(
    tenant: Callable[..., Tenant], inference: dict[str, FakeInference], adapter: Adapter
) -> None:
    owner, friend = tenant("default"), tenant("friend")
    body = {"name": adapter.name, "target": "osora-tiny"}
    assert friend.http.post("/aliases", json=body).status_code == 200, "no model of that name is there for them"
    owner.every(owner.permissions.create(adapter.name, project_ids=[friend.id]))
    friend.chat(adapter.name)
    assert next(iter(inference.values())).asked[-1]["adapter"] is None


def test_who_may_call_it_may_do_nothing_else(
    tenant: Callable[..., Tenant], registry: Registry, principal: Principal, adapter: Adapter
) -> None:
    owner, friend = tenant("default"), tenant("friend")
    owner.every(owner.permissions.create(adapter.name, project_ids=[friend.id]))
    with pytest.raises(package.PermissionDeniedError) as refused:
        friend(friend.openai.models.delete(adapter.name))
    assert refused.value.code == "model_not_yours"
    rows = b'{"prompt": "a", "completion": "b"}\n' * 12
    body = {"training_file": friend(friend.openai.files.create(file=("a.jsonl", rows), purpose="fine-tune")).id}
    for response in (
        friend.http.get(f"/adapters/{adapter.name}"),
        friend.http.get(f"/adapters/{adapter.name}/download"),
        friend.http.get(f"/adapters/{adapter.name}/download?format=lora"),
        friend.http.delete(f"/adapters/{adapter.name}"),
        friend.http.post("/jobs", json={"model": adapter.name, **body}),
        friend.http.post("/jobs", json={"model": "osora-tiny", "osora": {"from_adapter": adapter.id}, **body}),
        friend.http.post("/aliases", json={"name": "mine", "target": adapter.name}),
        friend.http.get(f"/v1/fine_tuning/checkpoints/{adapter.name}/permissions"),
        friend.http.post(f"/v1/fine_tuning/checkpoints/{adapter.name}/permissions", json={"project_ids": [friend.id]}),
        friend.http.get(f"/jobs/{adapter.job_id}"),
    ):
        error_of(response, 404)
    error_of(friend.http.post("/aliases", json={"name": adapter.name, "target": "osora-tiny"}), 409)
    assert owner.models()[adapter.name] == "default"
    adapters.delete(registry, principal, adapter.id)
    with pytest.raises(package.NotFoundError):
        friend.chat(adapter.name)
    retention.maintain(registry)
    with registry.reading() as session:
        assert session.scalars(select(Permission)).all() == []


def test_a_checkpoint_with_a_slash_in_its_name(
    tenant: Callable[..., Tenant], registry: Registry, principal: Principal, inference: dict[str, FakeInference]
) -> None:
    job = submit(registry, principal, suffix="bot")
    with registry.transaction() as session:
        record_checkpoint(session, claim(registry, job), 5)
        session.execute(update(type(job)).values(base="org/tiny"))
        session.add(AddedBase(name="org/tiny", id="base-1", source="x", state="ready"))
    owner, friend = tenant("default"), tenant("friend")
    (checkpoint,) = owner.every(owner.openai.fine_tuning.jobs.checkpoints.list(job.id))
    name = checkpoint.fine_tuned_model_checkpoint
    assert name.startswith("ft:org/tiny:default:bot:")
    (given,) = owner.every(owner.permissions.create(name, project_ids=[friend.id]))
    friend.chat(name)
    assert next(iter(inference.values())).asked[-1]["adapter"]["id"] == checkpoint.id
    assert friend.models()[name] == "default"
    assert [one.id for one in owner.every(owner.permissions.list(name))] == [given.id]
    assert owner(owner.permissions.delete(given.id, fine_tuned_model_checkpoint=name)).deleted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_permissions_page(tenant: Callable[..., Tenant], adapter: Adapter) -> None:
    owner, friends = tenant("default"), [tenant(f"friend-{number}") for number in range(5)]
    ids = [friend.id for friend in friends]
    given = owner.every(owner.permissions.create(adapter.name, project_ids=ids))
    assert [one.project_id for one in given] == ids
    listed = owner.permissions.list
    assert [one.project_id for one in owner.every(listed(adapter.name, limit=2))] == ids[::-1]
    assert [one.project_id for one in owner.every(listed(adapter.name, limit=2, order="ascending"))] == ids
    assert [one.id for one in owner.every(listed(adapter.name, project_id=ids[2]))] == [given[2].id]
    page = owner(owner.permissions.retrieve(adapter.name, limit=2))
    assert ([one.id for one in page.data], page.has_more) == ([given[4].id, given[3].id], True)
    assert (page.object, page.first_id, page.last_id) == ("list", given[4].id, given[3].id)


def test_what_is_refused(
    tenant: Callable[..., Tenant], client_with: Callable[..., httpx.Client], adapter: Adapter
) -> None:
    owner, friend = tenant("default"), tenant("friend")

    def refused(error: Any, code: str, made: Callable[[], Any]) -> None:
        with pytest.raises(error) as caught:
            owner.every(made())
        assert caught.value.code == code

    create = owner.permissions.create
    refused(package.NotFoundError, "project_not_found", lambda: create(adapter.name, project_ids=["tenant-none"]))
    refused(package.NotFoundError, "project_not_found", lambda: create(adapter.name, project_ids=["friend"]))
    refused(package.BadRequestError, "invalid_value", lambda: create(adapter.name, project_ids=[owner.id]))
    refused(package.BadRequestError, "invalid_value", lambda: create(adapter.name, project_ids=[]))
    refused(package.NotFoundError, "checkpoint_not_found", lambda: create("ft:none", project_ids=[friend.id]))
    with pytest.raises(package.NotFoundError) as caught:
        owner(owner.permissions.delete("cp_none", fine_tuned_model_checkpoint=adapter.name))
    assert (caught.value.code, caught.value.param) == ("permission_not_found", "permission_id")
    writer = client_with("read", "train")
    path = f"/v1/fine_tuning/checkpoints/{adapter.name}/permissions"
    for response in (
        writer.get(path),
        writer.post(path, json={"project_ids": [friend.id]}),
        writer.delete(f"{path}/x"),
    ):
        error_of(response, 403)
