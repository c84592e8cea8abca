"""Trained adapters: by id and by name, listed, downloaded, deleted."""

from dataclasses import replace

import httpx
import pytest

from registry.context import Registry
from registry.models import Adapter
from registry.tenants import Principal
from tests.integration.api.conftest import TOKEN, ZIP, error_of
from tests.integration.api.fake_inference import REFUSAL, FakeInference
from tests.support.jobs import claim, new_adapter, record_checkpoint, submit

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_by_id_and_by_name(client: httpx.Client, adapter: Adapter) -> None:
    found = client.get(f"/adapters/{adapter.id}").json()
    assert found == client.get(f"/adapters/{adapter.name}").json()
    assert found["name"].startswith("ft:osora-tiny:default:triage:")
    assert (found["object"], found["rank"], found["job_id"]) == ("adapter", 16, adapter.job_id)
    assert "object_key" not in found
    assert client.get("/adapters").json()["data"] == [found]
    assert client.get("/adapters?base=other").json()["data"] == []
    job = client.get(f"/jobs/{adapter.job_id}").json()
    assert (job["osora"]["adapter_id"], job["fine_tuned_model"]) == (found["id"], found["name"])


def test_a_name_with_a_slash(client: httpx.Client, registry: Registry, adapter: Adapter) -> None:
    with registry.transaction() as session:
        session.merge(adapter).name = "ft:org/model:default::x"
    for path in ("/adapters/ft:org%2Fmodel:default::x", "/adapters/ft:org/model:default::x"):
        assert client.get(path).json()["id"] == adapter.id
        assert client.get(f"{path}/download").content == ZIP


def test_download(client: httpx.Client, adapter: Adapter) -> None:
    response = client.get(f"/adapters/{adapter.id}/download?format=osora")
    assert response.content == ZIP
    assert response.headers["content-type"] == "application/zip"
    assert f"{adapter.id}.zip" in response.headers["content-disposition"]
    etag = response.headers["etag"]
    assert etag == f'"{adapter.sha256}"'
    again = client.get(f"/adapters/{adapter.id}/download", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    error = error_of(client.get(f"/adapters/{adapter.id}/download?format=onnx"), 400)
    assert error["param"] == "format"
    assert "osora" in error["message"]


def test_a_checkpoint_is_shown_and_downloaded_like_an_adapter(
    client: httpx.Client, registry: Registry, principal: Principal
) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        key = f"checkpoints/{job.id}/1/5.zip"
        artifact = replace(new_adapter(attempt), step=5, object_key=key, bytes=len(ZIP))
        record_checkpoint(session, attempt, 5, adapter=artifact)
    registry.store.put(key, ZIP)
    (checkpoint,) = client.get(f"/jobs/{job.id}/checkpoints").json()["data"]
    for name in (checkpoint["id"], checkpoint["fine_tuned_model_checkpoint"]):
        shown = client.get(f"/adapters/{name}").json()
        assert (shown["id"], shown["name"]) == (checkpoint["id"], checkpoint["fine_tuned_model_checkpoint"])
        assert (shown["step"], shown["job_id"], shown["base"]) == (5, job.id, "osora-tiny")
        assert (shown["sha256"], shown["bytes"]) == ("a" * 64, len(ZIP))
        assert shown["created_at"] == checkpoint["created_at"]
        assert "object_key" not in shown
        response = client.get(f"/adapters/{name}/download")
        assert response.content == ZIP
        assert response.headers["etag"] == f'"{"a" * 64}"'


class TestExport:
    """In the forms that an inference server makes."""

    @pytest.fixture
    def inference_urls(self, inference: dict[str, FakeInference]) -> str:
        return next(iter(inference))

    @pytest.mark.parametrize("form", ["lora", "merged", "gguf"])
    def test_download(
        self, client: httpx.Client, inference: dict[str, FakeInference], adapter: Adapter, form: str
    ) -> None:
        fake = next(iter(inference.values()))
        response = client.get(f"/adapters/{adapter.id}/download?format={form}")
        assert response.content == b"exported"
        assert response.headers["content-length"] == "8"
        assert f"{adapter.id}-{form}.zip" in response.headers["content-disposition"]
        (asked,) = fake.asked
        assert (asked["base"], asked["format"], asked["adapter"]["sha256"]) == ("osora-tiny", form, adapter.sha256)
        fake.mood = "refusing"
        assert client.get(f"/adapters/{adapter.id}/download?format={form}").json() == REFUSAL
        error_of(client.get(f"/adapters/adp-none/download?format={form}"), 404)

    def test_download_of_a_checkpoint(
        self, client: httpx.Client, registry: Registry, principal: Principal, inference: dict[str, FakeInference]
    ) -> None:
        job = submit(registry, principal)
        attempt = claim(registry, job)
        with registry.transaction() as session:
            record_checkpoint(session, attempt, 5, adapter=replace(new_adapter(attempt), step=5))
        (checkpoint,) = client.get(f"/jobs/{job.id}/checkpoints").json()["data"]
        response = client.get(f"/adapters/{checkpoint['id']}/download?format=gguf")
        assert response.content == b"exported"
        (asked,) = next(iter(inference.values())).asked
        assert (asked["format"], asked["adapter"]["id"]) == ("gguf", checkpoint["id"])


def test_delete(client: httpx.Client, registry: Registry, adapter: Adapter) -> None:
    deleted = client.delete(f"/adapters/{adapter.name}").json()
    assert deleted == {"id": adapter.id, "object": "adapter", "deleted": True}
    error_of(client.get(f"/adapters/{adapter.id}"), 404)
    assert registry.store.size(adapter.object_key) is None
    assert client.get(f"/jobs/{adapter.job_id}").json()["fine_tuned_model"] == adapter.name


def test_objects_for_our_own_processes(client: httpx.Client, anonymous: httpx.Client, adapter: Adapter) -> None:
    path = f"/internal/objects/{adapter.object_key}"
    assert anonymous.get(path, headers={"authorization": f"Bearer {TOKEN}"}).content == ZIP
    error_of(anonymous.get(path), 401)
    error_of(client.get(path), 401)
    missing = anonymous.get("/internal/objects/no/such", headers={"authorization": f"Bearer {TOKEN}"})
    assert error_of(missing, 404)["code"] == "object_not_found"
