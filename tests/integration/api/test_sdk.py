"""The SDK against the real API: whether it has everything, and both of its clients alike."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest

from api.app import create_app
from api.generate.schemas import GenerateRequest
from api.jobs.requests import CreateJob, Knobs
from osora import AsyncOsora, Osora, OsoraAPIError, OsoraConnectionError
from osora.options import GenerateOptions, JobFields, JobOptions
from osora.sdk import files
from osora.sdk.endpoint import Resource, iterated, method
from registry.models import Adapter
from registry.settings import Settings
from tests.integration.api.conftest import ZIP
from tests.integration.api.fake_inference import FakeInference
from tests.support.clients import MODES, Client, client

# Routes that no method calls, each with why.
WITHOUT: dict[tuple[str, str], str] = {}
# A value for each argument that a method cannot do without.
ARGUMENTS: dict[str, Any] = {
    "base": "b",
    "bytes": 1,
    "data": b"x",
    "event_types": ["adapter.published"],
    "file": b"x",
    "folder": Path(),
    "part_ids": ["part_1"],
    "source": b"x",
    "targets": "m",
    "tenant_ids": ["tenant-1"],
}
OBJECT = {"id": "x", "data": [], "has_more": False, "result_files": [], "filename": "x", "file": {}}


def endpoints(of: Any) -> Iterator[tuple[Any, str]]:
    """The methods of a client and of its resources that ask the service for something."""
    for resource in (of, *(value for value in vars(of).values() if isinstance(value, Resource))):
        for name, _ in inspect.getmembers(type(resource), lambda member: isinstance(member, method | iterated)):
            yield resource, name


def play(request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("/events") and "event-stream" in request.headers.get("accept", ""):
        return httpx.Response(200, text="event: done\ndata: {}\n\n", headers={"content-type": "text/event-stream"})
    if b'"stream":true' in request.content:
        return httpx.Response(200, text="event: done\ndata: {}\n\n", headers={"content-type": "text/event-stream"})
    return httpx.Response(200, json=OBJECT, headers={"etag": f'"{"0" * 64}"'})


@pytest.fixture(params=MODES)
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> list[httpx.Request]:
    """What each method of a client asks for, once."""
    requests: list[httpx.Request] = []

    def handler(sent: httpx.Request) -> httpx.Response:
        sent.read()
        requests.append(sent)
        return play(sent)

    with client(request.param, handler=handler) as made:
        for resource, name in endpoints(made.osora):
            if name == "pull_basis":  # what it brings is checked
                continue
            function = getattr(resource, name)
            needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            given = {needs: ARGUMENTS.get(needs, "x") for needs in needed}
            if "path" in given:
                given["path"] = tmp_path / "out"
            came = function(**given)
            is_iterated = isinstance(inspect.getattr_static(resource, name), iterated)
            made.all(came) if is_iterated else made.got(came)
    return requests


def test_every_native_route_has_a_method(asked: list[httpx.Request]) -> None:
    described = create_app(Settings()).openapi()["paths"]
    routes = {
        (verb.upper(), path): operation
        for path, operations in described.items()
        for verb, operation in operations.items()
        if not path.startswith("/v1/") or path.endswith(("/permissions", "/permissions/{permission_id}"))
    }
    assert len(routes) > 40
    called: dict[tuple[str, str], list[httpx.Request]] = {route: [] for route in routes}
    for request in asked:
        for verb, path in routes:
            if request.method == verb and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path):
                called[verb, path].append(request)
    missing = {route for route, requests in called.items() if not requests}
    assert missing - {("GET", "/bases/{base}/basis")} == WITHOUT.keys()
    for route, operation in routes.items():
        takes_a_key = any(parameter["name"] == "idempotency-key" for parameter in operation.get("parameters", []))
        sent = [request for request in called[route] if "dry_run" not in request.url.params]
        assert all(("idempotency-key" in request.headers) == takes_a_key for request in sent), route


@pytest.mark.parametrize(
    ("model", "options", "elsewhere"),
    [
        (CreateJob, JobFields, {"model", "training_file"}),
        (Knobs, JobOptions, set()),
        (GenerateRequest, GenerateOptions, {"adapter_id", "prompt", "messages", "stream"}),
    ],
)
def test_every_field_of_a_request_can_be_given(model: Any, options: Any, elsewhere: set[str]) -> None:
    assert model.model_fields.keys() - elsewhere <= get_type_hints(options).keys()


def test_every_query_of_a_list_can_be_given() -> None:
    described = create_app(Settings()).openapi()["paths"]
    with Osora("http://osora.test", "osk") as osora:
        for path, listing in {
            "/files": osora.files.list,
            "/jobs": osora.jobs.list,
            "/jobs/{job_id}/events": osora.jobs.list_events,
            "/jobs/{job_id}/checkpoints": osora.jobs.checkpoints,
            "/adapters": osora.adapters.list,
            "/aliases": osora.aliases.list,
            "/webhook_endpoints": osora.webhooks.list,
            "/webhook_endpoints/{endpoint_id}/deliveries": osora.webhooks.deliveries,
            "/keys": osora.keys.list,
            "/tenants": osora.tenants.list,
            "/usage": osora.usage.list,
        }.items():
            queries = {p["name"] for p in described[path]["get"].get("parameters", []) if p["in"] == "query"}
            assert queries - {"stream", "format"} <= inspect.signature(listing).parameters.keys(), path


def test_both_clients_have_the_same_methods_with_their_own_words() -> None:
    sync, loop = Osora("http://osora.test", "osk"), AsyncOsora("http://osora.test", "osk")
    methods = [
        (getattr(one, name), getattr(other, name))
        for (one, name), (other, _) in zip(endpoints(sync), endpoints(loop), strict=True)
    ]
    assert len(methods) > 50
    for one, other in methods:
        assert one.__doc__
        assert one.__doc__ == other.__doc__
        assert one.__name__ == other.__name__
        assert inspect.signature(one).parameters == inspect.signature(other).parameters
        assert "self" not in inspect.signature(one).parameters
    assert {"suffix", "osora"} <= inspect.signature(sync.jobs.create).parameters.keys()
    assert inspect.iscoroutinefunction(loop.jobs.get)
    assert not inspect.iscoroutinefunction(sync.jobs.get)
    sync.close()


@pytest.fixture(params=MODES)
def connected(request: pytest.FixtureRequest, url: str, api_key: str) -> Iterator[Client]:
    """A client, of each mode in turn, of a real API."""
    with client(request.param, url, api_key) as made:
        yield made


ROWS = b"".join(b'{"prompt": "What is %d?", "completion": "a number"}\n' % number for number in range(100))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_files(connected: Client, tmp_path: Path) -> None:
    osora, progress = connected.osora, []
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    file = connected.got(
        osora.files.upload(
            tmp_path / "a.jsonl", expires_after=3600, on_progress=lambda sent, total: progress.append((sent, total))
        )
    )
    assert (file["filename"], file["osora"]["rows"]) == ("a.jsonl", 100)
    assert file["expires_at"] - file["created_at"] == 3600
    assert progress[-1] == (len(ROWS), len(ROWS))
    assert connected.got(osora.files.get(file["id"])) == file
    assert connected.got(osora.files.content(file["id"])) == ROWS
    assert connected.got(osora.files.download(file["id"], tmp_path / "b.jsonl")) == len(ROWS)
    assert (tmp_path / "b.jsonl").read_bytes() == ROWS
    others = [connected.got(osora.files.upload(ROWS, filename=f"{n}.jsonl")) for n in range(2)]
    listed = connected.all(osora.files.list(order="asc", purpose="fine-tune"))
    assert [entry["id"] for entry in listed] == [entry["id"] for entry in (file, *others)]
    assert connected.got(osora.files.delete(file["id"])) is None
    assert len(connected.all(osora.files.list())) == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_large_file_goes_in_parts(connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora.sdk.files._PART_BYTES", 1000)
    progress: list[tuple[int, int]] = []
    file = connected.got(
        connected.osora.files.upload(ROWS, filename="large.jsonl", on_progress=lambda *told: progress.append(told))
    )
    assert (file["filename"], file["bytes"], file["osora"]["rows"]) == ("large.jsonl", len(ROWS), 100)
    assert [sent for sent, _ in progress] == sorted({sent for sent, _ in progress})
    assert len(progress) == -(-len(ROWS) // 1000)
    assert progress[-1] == (len(ROWS), len(ROWS))
    assert connected.got(connected.osora.files.content(file["id"])) == ROWS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_large_file_that_is_refused_leaves_no_upload(connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora.sdk.files._PART_BYTES", 1000)
    begun, complete = [], files._complete

    def noted(upload_id: str, *rest: Any) -> Any:
        begun.append(upload_id)
        return complete(upload_id, *rest)

    monkeypatch.setattr(files, "_complete", noted)
    with pytest.raises(OsoraAPIError, match="line 101") as caught:
        connected.got(connected.osora.files.upload(ROWS + b"oops\n"))
    assert caught.value.line == 101
    assert connected.got(connected.osora.uploads.get(begun[0]))["status"] == "cancelled"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_large_file_that_broke_off_goes_on_under_its_key(connected: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora.sdk.files._PART_BYTES", 1000)
    part = files._part

    def broken(upload_id: str, source: Any, start: int, *rest: Any) -> Any:
        if start == 2000:
            raise OsoraConnectionError("http://osora.test", "broken")
        return part(upload_id, source, start, *rest)

    monkeypatch.setattr(files, "_part", broken)
    with pytest.raises(OsoraConnectionError):
        connected.got(connected.osora.files.upload(ROWS, idempotency_key="mine"))
    monkeypatch.setattr(files, "_part", part)
    file = connected.got(connected.osora.files.upload(ROWS, idempotency_key="mine"))
    assert connected.got(connected.osora.files.content(file["id"])) == ROWS
    assert connected.got(connected.osora.files.upload(ROWS, idempotency_key="mine")) == file


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_uploads_part_by_part(connected: Client) -> None:
    osora = connected.osora
    upload = connected.got(osora.uploads.create("a.jsonl", len(ROWS)))
    parts = [connected.got(osora.uploads.add_part(upload["id"], piece))["id"] for piece in (ROWS[:500], ROWS[500:])]
    completed = connected.got(osora.uploads.complete(upload["id"], parts))
    assert completed["file"]["osora"]["rows"] == 100
    other = connected.got(osora.uploads.create("b.jsonl", 5, idempotency_key="mine"))
    assert connected.got(osora.uploads.create("b.jsonl", 5, idempotency_key="mine")) == other
    assert connected.got(osora.uploads.cancel(other["id"]))["status"] == "cancelled"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_jobs(connected: Client) -> None:
    osora = connected.osora
    file = connected.got(osora.files.upload(ROWS))
    fields = {"suffix": "a", "osora": {"rank": 4}}
    made = [
        connected.got(osora.jobs.create("osora-tiny", file["id"], metadata={"n": str(n)}, **fields)) for n in range(3)
    ]
    same = [connected.got(osora.jobs.create("osora-tiny", file["id"], idempotency_key="k"))["id"] for _ in range(2)]
    assert same[0] == same[1]
    assert [job["id"] for job in connected.all(osora.jobs.list(metadata={"n": "1"}))] == [made[1]["id"]]
    two = osora.jobs.list(2)
    assert (len(connected.all(two)), two.has_more) == (2, True)
    assert len(connected.all(osora.jobs.list())) == 4
    job_id = made[0]["id"]
    assert connected.got(osora.jobs.pause(job_id))["status"] == "paused"
    assert connected.got(osora.jobs.resume(job_id))["status"] == "queued"
    assert connected.got(osora.jobs.cancel(job_id))["status"] == "cancelled"
    heard: list[Any] = []
    assert connected.got(osora.jobs.wait(job_id, on_event=heard.append))["status"] == "cancelled"
    assert [event["id"] for event in heard] == [event["id"] for event in connected.all(osora.jobs.events(job_id))]
    assert len(heard) == len(connected.all(osora.jobs.list_events(job_id))) > 2
    assert connected.all(osora.jobs.checkpoints(job_id)) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_names_keys_and_webhooks(connected: Client) -> None:
    osora = connected.osora
    connected.got(osora.aliases.set("triage", "osora-tiny"))
    assert connected.got(osora.aliases.set("triage", {"osora-tiny": 2}, expected_version=1))["version"] == 2
    assert [alias["name"] for alias in connected.all(osora.aliases.list())] == ["triage"]
    assert len(connected.got(osora.aliases.history("triage"))) == 2
    connected.got(osora.aliases.delete("triage"))
    assert connected.got(osora.aliases.rollback("triage"))["targets"] == {"osora-tiny": 2}
    connected.got(osora.tenants.create("acme"))
    assert connected.got(osora.tenants.suspend("acme"))["suspended_at"]
    assert connected.got(osora.tenants.resume("acme")) == connected.got(osora.tenants.get("acme"))
    assert [tenant["name"] for tenant in connected.all(osora.tenants.list())] == ["acme", "default"]
    limits = connected.got(osora.limits.set_for_tenant("acme", {"queued_jobs": 7, "stored_bytes": "unlimited"}))
    assert limits["overrides"] == {"queued_jobs": 7, "stored_bytes": "unlimited"}
    assert connected.got(osora.limits.of_tenant("acme"))["limits"]["queued_jobs"] == 7
    assert connected.got(osora.limits.reset_for_tenant("acme"))["overrides"] == {}
    key = connected.got(osora.keys.create("ci", scopes=["read"], expires_in=3600))
    assert key["key"].startswith("osk-")
    assert connected.got(osora.limits.set_for_key(key["id"], {"priority": "low"}))["limits"]["priority"] == "low"
    assert connected.got(osora.limits.of_key(key["id"]))["overrides"] == {"priority": "low"}
    assert connected.got(osora.limits.reset_for_key(key["id"]))["overrides"] == {}
    assert connected.got(osora.keys.revoke(key["id"])) is None
    assert {entry["name"] for entry in connected.all(osora.keys.list())} == {"ci", "test"}
    types = connected.got(osora.webhooks.event_types())
    hook = connected.got(osora.webhooks.create("https://93.184.216.34/hook", types, name="all"))
    assert hook["signing_secret"].startswith("whsec_")
    changed = connected.got(osora.webhooks.update(hook["id"], name="none", enabled=False))
    assert (changed["name"], changed["osora"]["enabled"]) == ("none", False)
    assert connected.got(osora.webhooks.rotate_secret(hook["id"]))["signing_secret"] != hook["signing_secret"]
    assert [entry["id"] for entry in connected.all(osora.webhooks.list())] == [hook["id"]]
    assert connected.all(osora.webhooks.deliveries(hook["id"])) == []
    connected.got(osora.webhooks.delete(hook["id"]))
    assert connected.got(osora.health()) == {"status": "ok"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestAdapters:
    """With an inference server that is played."""

    @pytest.fixture
    def inference_urls(self, inference: dict[str, FakeInference]) -> str:
        return ",".join(inference)

    def test_adapters_and_permissions(self, connected: Client, adapter: Adapter, tmp_path: Path) -> None:
        osora = connected.osora
        assert [entry["id"] for entry in connected.all(osora.adapters.list(base="osora-tiny"))] == [adapter.id]
        assert connected.got(osora.adapters.get(adapter.name))["id"] == adapter.id
        assert connected.got(osora.adapters.download(adapter.id, tmp_path / "a.zip")) == len(ZIP)
        assert (tmp_path / "a.zip").read_bytes() == ZIP
        tenant = connected.got(osora.tenants.create("acme"))["id"]
        (given,) = connected.got(osora.permissions.create(adapter.name, [tenant]))
        assert connected.all(osora.permissions.list(adapter.name)) == [given]
        connected.got(osora.permissions.delete(adapter.name, given["id"]))
        assert connected.all(osora.permissions.list(adapter.name, tenant_id=tenant)) == []
        connected.got(osora.adapters.delete(adapter.id))

    def test_generations(self, connected: Client, adapter: Adapter) -> None:
        osora = connected.osora
        assert connected.got(osora.generate("Hello", adapter=adapter.id, max_tokens=4))["text"] == "category: billing"
        stream = osora.stream([{"role": "user", "content": "Hello"}], temperature=0.5)
        assert connected.all(stream) == ["category: ", "billing"]
        assert stream.result["text"] == "category: billing"
        assert [base["name"] for base in connected.got(osora.bases())] == ["osora-tiny"]
        assert "inference" in connected.got(osora.ready())["checks"]
