"""Who may do what: no key, a wrong key, a key without the scope, another tenant's key."""

from collections.abc import Callable

import httpx
import pytest

from registry.context import Registry
from registry.models import Adapter
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.support.jobs import submit

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ROUTES = [
    ("GET", "/files", "read"),
    ("POST", "/files", "train"),
    ("GET", "/files/file-1", "read"),
    ("GET", "/files/file-1/content", "read"),
    ("DELETE", "/files/file-1", "train"),
    ("GET", "/jobs", "read"),
    ("POST", "/jobs", "train"),
    ("GET", "/jobs/ftjob-1", "read"),
    ("POST", "/jobs/ftjob-1/cancel", "train"),
    ("POST", "/jobs/ftjob-1/pause", "train"),
    ("POST", "/jobs/ftjob-1/resume", "train"),
    ("GET", "/jobs/ftjob-1/events", "read"),
    ("GET", "/jobs/ftjob-1/checkpoints", "read"),
    ("GET", "/adapters", "read"),
    ("GET", "/adapters/adp-1", "read"),
    ("GET", "/adapters/adp-1/download", "read"),
    ("DELETE", "/adapters/adp-1", "train"),
    ("POST", "/generate", "generate"),
    ("GET", "/bases", "read"),
    ("GET", "/keys", "admin"),
    ("POST", "/keys", "admin"),
    ("DELETE", "/keys/key-1", "admin"),
    ("GET", "/tenants", "operator"),
    ("POST", "/tenants", "operator"),
    ("GET", "/tenants/acme", "operator"),
    ("POST", "/tenants/acme/suspend", "operator"),
    ("POST", "/tenants/acme/resume", "operator"),
    ("GET", "/v1/files", "read"),
    ("POST", "/v1/files", "train"),
    ("GET", "/v1/files/file-1", "read"),
    ("GET", "/v1/files/file-1/content", "read"),
    ("DELETE", "/v1/files/file-1", "train"),
    ("GET", "/v1/fine_tuning/jobs", "read"),
    ("POST", "/v1/fine_tuning/jobs", "train"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-1", "read"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-1/cancel", "train"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-1/pause", "train"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-1/resume", "train"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-1/events", "read"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-1/checkpoints", "read"),
    ("GET", "/v1/models", "read"),
    ("GET", "/v1/models/osora-tiny", "read"),
    ("DELETE", "/v1/models/osora-tiny", "train"),
    ("POST", "/v1/chat/completions", "generate"),
    ("POST", "/v1/completions", "generate"),
    ("POST", "/v1/responses", "generate"),
]
WITHOUT: dict[str, tuple[str, ...]] = {
    "read": ("train", "generate"),
    "train": ("read", "generate"),
    "generate": ("read", "train"),
    "admin": ("read", "train", "generate"),
    "operator": ("admin",),
}


@pytest.mark.parametrize(("method", "path"), [route[:2] for route in ROUTES])
def test_no_key_and_a_wrong_key(anonymous: httpx.Client, method: str, path: str) -> None:
    response = anonymous.request(method, path)
    assert error_of(response, 401)["code"] == "missing_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    response = anonymous.request(method, path, headers={"authorization": "Bearer osk-guessed"})
    assert error_of(response, 401)["code"] == "invalid_api_key"
    assert "osk-guessed" not in response.text


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_key_without_the_scope(client_with: Callable[..., httpx.Client], method: str, path: str, scope: str) -> None:
    response = client_with(*WITHOUT[scope]).request(method, path)
    error = error_of(response, 403)
    assert error["code"] == "insufficient_scope"
    assert scope in error["message"]


def test_an_upload_is_refused_before_it_is_read(anonymous: httpx.Client) -> None:
    response = anonymous.post("/files", content=b"not even a form", headers={"content-type": "text/plain"})
    error_of(response, 401)


def test_another_tenants_things_are_not_there(
    client_with: Callable[..., httpx.Client], registry: Registry, principal: Principal, adapter: Adapter
) -> None:
    job = submit(registry, principal)
    stranger = client_with("read", "train", "generate", tenant="stranger")
    for method, path in [
        ("GET", f"/files/{job.training_file_id}"),
        ("GET", f"/files/{job.training_file_id}/content"),
        ("DELETE", f"/files/{job.training_file_id}"),
        ("GET", f"/jobs/{job.id}"),
        ("POST", f"/jobs/{job.id}/cancel"),
        ("POST", f"/jobs/{job.id}/pause"),
        ("POST", f"/jobs/{job.id}/resume"),
        ("GET", f"/jobs/{job.id}/events"),
        ("GET", f"/jobs/{job.id}/events?stream=1"),
        ("GET", f"/jobs/{job.id}/checkpoints"),
        ("GET", f"/adapters/{adapter.id}"),
        ("GET", f"/adapters/{adapter.name}"),
        ("GET", f"/adapters/{adapter.id}/download"),
        ("DELETE", f"/adapters/{adapter.id}"),
        ("GET", f"/v1/files/{job.training_file_id}"),
        ("GET", f"/v1/files/{job.training_file_id}/content"),
        ("DELETE", f"/v1/files/{job.training_file_id}"),
        ("GET", f"/v1/fine_tuning/jobs/{job.id}"),
        ("POST", f"/v1/fine_tuning/jobs/{job.id}/cancel"),
        ("POST", f"/v1/fine_tuning/jobs/{job.id}/pause"),
        ("POST", f"/v1/fine_tuning/jobs/{job.id}/resume"),
        ("GET", f"/v1/fine_tuning/jobs/{job.id}/events"),
        ("GET", f"/v1/fine_tuning/jobs/{job.id}/checkpoints"),
        ("GET", f"/v1/models/{adapter.id}"),
        ("GET", f"/v1/models/{adapter.name}"),
        ("GET", f"/v1/models/{job.id}"),
        ("DELETE", f"/v1/models/{adapter.name}"),
    ]:
        error_of(stranger.request(method, path), 404)
    for path in ("/files", "/jobs", "/adapters", "/v1/files", "/v1/fine_tuning/jobs"):
        assert stranger.get(path).json()["data"] == []
    assert [model["id"] for model in stranger.get("/v1/models").json()["data"]] == ["osora-tiny"]
    body = {"model": "osora-tiny", "training_file": job.training_file_id}
    for path in ("/jobs", "/v1/fine_tuning/jobs"):
        assert error_of(stranger.post(path, json=body), 404)["param"] == "training_file"
    body = {"adapter_id": adapter.id, "prompt": "x"}
    assert error_of(stranger.post("/generate", json=body), 404)["param"] == "adapter_id"
