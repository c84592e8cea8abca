"""Adapters from outside: posted as a ZIP, looked at by an inference server, and then like any other."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from registry.context import Registry
from registry.models import Adapter
from registry.tenants import Principal
from tests.integration.api.conftest import MAX_UPLOAD_BYTES, error_of
from tests.integration.api.fake_inference import FakeInference
from tests.support.archives import CONFIG, WEIGHTS, archive, lora_weights
from tests.support.jobs import upload

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


def bring(client: httpx.Client, data: bytes | None = None, key: str | None = None, **fields: str) -> httpx.Response:
    sent = {"file": ("mine.zip", archive() if data is None else data)}
    headers = {} if key is None else {"idempotency-key": key}
    return client.post("/adapters", data=fields, files=sent, headers=headers)


def stored(registry: Registry) -> list[str]:
    return [found.key for found in registry.store.list("adapters")]


def test_a_lora_is_published_with_what_the_server_found(
    client: httpx.Client, fake: FakeInference, registry: Registry
) -> None:
    fake.found = {**fake.found, "warnings": ["its base is called otherwise"]}
    response = bring(client, suffix="mine")
    assert response.status_code == 200, response.text
    made = response.json()
    assert made.pop("warnings") == ["its base is called otherwise"]
    assert made["name"].startswith("ft:osora-tiny:default:mine:")
    assert (made["object"], made["type"], made["job_id"], made["rank"]) == ("adapter", "lora", None, 4)
    assert made["basis_fingerprint"] is None
    (asked,) = fake.asked
    assert asked.pop("tenant").startswith("tenant-")
    assert asked == {"base": "osora-tiny", "object_key": stored(registry)[0], "sha256": made["sha256"]}
    assert client.get(f"/adapters/{made['id']}").json() == made
    assert client.get("/adapters").json()["data"] == [made]
    assert made["name"] in [model["id"] for model in client.get("/v1/models").json()["data"]]
    client.post("/generate", json={"adapter_id": made["name"], "prompt": "hello"})
    assert fake.asked[-1]["adapter"]["type"] == "lora"
    assert client.delete(f"/adapters/{made['name']}").json()["deleted"]
    assert stored(registry) == []
    error_of(client.get(f"/adapters/{made['id']}"), 404)


def test_it_comes_back_as_it_came_or_merged(client: httpx.Client, fake: FakeInference) -> None:
    made = bring(client).json()
    path = f"/adapters/{made['id']}/download"
    for query in ("", "?format=lora"):
        content = client.get(path + query).content
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            assert opened.namelist() == [CONFIG, WEIGHTS]
            assert opened.read(WEIGHTS) == lora_weights()
    assert client.get(f"{path}?format=merged").content == b"exported"
    assert (fake.asked[-1]["format"], fake.asked[-1]["adapter"]["type"]) == ("merged", "lora")
    error = error_of(client.get(f"{path}?format=osora"), 400)
    assert (error["param"], error["code"]) == ("format", "format_not_available")
    assert "format=lora" in error["next_action"]


def test_one_of_the_basis_comes_back_as_it_came(client: httpx.Client, fake: FakeInference) -> None:
    fake.found = {**fake.found, "type": "osora", "basis_fingerprint": "b"}
    made = bring(client).json()
    assert (made["type"], made["basis_fingerprint"]) == ("osora", "b")
    plain, named = (client.get(f"/adapters/{made['id']}/download{query}") for query in ("", "?format=osora"))
    assert plain.content == named.content
    assert client.get(f"/adapters/{made['id']}/download?format=lora").content == b"exported"


def test_no_job_begins_with_a_lora(client: httpx.Client, registry: Registry, principal: Principal) -> None:
    made = bring(client).json()
    body: dict[str, Any] = {"training_file": upload(registry, principal).id, "model": "osora-tiny"}
    error = error_of(client.post("/jobs", json=body | {"osora": {"from_adapter": made["id"]}}), 400)
    assert (error["code"], error["param"]) == ("not_trainable", "osora.from_adapter")
    error = error_of(client.post("/jobs", json=body | {"model": made["name"]}), 400)
    assert error["param"] == "model"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"none", "no ZIP archive"),
        (archive({CONFIG: b"{}", WEIGHTS: lora_weights()}), "peft_type"),
        (archive({CONFIG: b'{"peft_type": "LORA"}', "adapter_model.bin": b"\x80"}), "is a pickle"),
        (archive({CONFIG: b'{"peft_type": "LORA"}', WEIGHTS: lora_weights(), "../x": b""}), "no plain path"),
        (archive({CONFIG: b'{"peft_type": "LORA"}', WEIGHTS: lora_weights()[:-1]}), "header speaks of"),
    ],
)
def test_what_is_no_adapter_is_refused_before_anybody_is_asked(
    client: httpx.Client, fake: FakeInference, registry: Registry, data: bytes, said: str
) -> None:
    error = error_of(bring(client, data), 400)
    assert said in error["message"]
    assert (error["param"], error["code"]) == ("file", "invalid_adapter")
    assert error["next_action"]
    assert fake.asked == []
    assert stored(registry) == []


def test_a_refusal_of_the_server_leaves_nothing(client: httpx.Client, fake: FakeInference, registry: Registry) -> None:
    fake.mood = "refusing"
    fake.refusal = {"error": {"message": "use_dora is True", "next_action": "merge it", "param": "use_dora"}}
    error = error_of(bring(client), 400)
    assert (error["message"], error["next_action"], error["code"]) == (
        "use_dora is True",
        "merge it",
        "invalid_adapter",
    )
    fake.mood = "busy"
    assert error_of(bring(client), 503)["code"] == "inference_unavailable"
    assert stored(registry) == []
    assert client.get("/adapters").json()["data"] == []


def test_what_is_too_large_is_refused_packed_and_unpacked(client: httpx.Client) -> None:
    assert "over" in error_of(bring(client, bytes(MAX_UPLOAD_BYTES + 100_000)), 413)["message"]
    bomb = archive({CONFIG: b'{"peft_type": "LORA"}', WEIGHTS: bytes(MAX_UPLOAD_BYTES + 1)})
    assert len(bomb) < MAX_UPLOAD_BYTES
    assert f"{WEIGHTS} is over {MAX_UPLOAD_BYTES} bytes" in error_of(bring(client, bomb), 413)["message"]


def test_bases_suffixes_and_forms_are_checked(client: httpx.Client, fake: FakeInference) -> None:
    assert bring(client, base="osora-tiny").json()["base"] == "osora-tiny"
    error = error_of(bring(client, base="other"), 404)
    assert (error["param"], error["code"]) == ("base", "base_not_found")
    assert error_of(bring(client, suffix="a:b"), 400)["param"] == "suffix"
    assert error_of(bring(client, sufix="a"), 400)["param"] == "sufix"
    assert "multipart/form-data" in error_of(client.post("/adapters", json={}), 400)["message"]
    assert error_of(client.post("/adapters", data={"file": "x"}, files={"base": b""}), 400)["param"] == "file"


def test_a_request_that_is_sent_again_imports_once(client: httpx.Client, fake: FakeInference) -> None:
    first, again = (bring(client, key="k") for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(fake.asked) == 1
    assert len(client.get("/adapters").json()["data"]) == 1
    error_of(bring(client, archive(lora_alpha=3), key="k"), 409)


def test_only_writers_import_and_strangers_see_nothing(
    client: httpx.Client, client_with: Callable[..., httpx.Client], fake: FakeInference
) -> None:
    error_of(bring(client_with("read")), 403)
    assert fake.asked == []
    made = bring(client).json()
    stranger = client_with("read", "train", "generate", tenant="stranger")
    assert stranger.get("/adapters").json()["data"] == []
    for path in (f"/adapters/{made['id']}", f"/adapters/{made['name']}", f"/adapters/{made['id']}/download"):
        error_of(stranger.get(path), 404)
    error_of(stranger.delete(f"/adapters/{made['id']}"), 404)
    error_of(stranger.post("/generate", json={"adapter_id": made["id"], "prompt": "x"}), 404)


def test_inference_servers_let_go_of_a_deleted_adapter(
    client: httpx.Client, adapter: Adapter, fake: FakeInference
) -> None:
    fake.held = [adapter.id, "adp-gone"]
    client.delete(f"/adapters/{adapter.id}").raise_for_status()
    assert fake.forgot.wait(60)
    assert fake.held == []
