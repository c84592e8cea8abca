"""Every failure has the one shape, names what is wrong, and says what would be right."""

import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from obstore.exceptions import GenericError
from sqlalchemy import Connection, event

from api.server import Server
from osora_common import http_protocol
from registry import jobs
from registry.context import Registry
from tests.integration.api.conftest import error_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

JOB = {"model": "osora-tiny", "training_file": "file-1"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("PUT", "/jobs", 405, "method_not_allowed"),
        ("GET", "/jobs/ftjob-1", 404, "job_not_found"),
        ("GET", "/files/file-1", 404, "file_not_found"),
        ("GET", "/adapters/adp-1", 404, "adapter_not_found"),
        ("GET", "/adapters/adp-1/download", 404, "adapter_not_found"),
        ("GET", "/jobs/ftjob-1/events?stream=1", 404, "job_not_found"),
        ("GET", "/jobs/ftjob-%00", 400, "unstorable_text"),
        ("GET", "/internal/objects/files/x", 401, "invalid_internal_token"),
    ],
)
def test_paths(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    assert error_of(client.request(method, path), status)["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "there"),
    [
        ("GET", "/models", "/v1/models"),
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("GET", "/fine_tuning/jobs/ftjob-1", "/v1/fine_tuning/jobs/ftjob-1"),
        ("POST", "/v1/v1/messages", "/v1/messages"),
        ("POST", "/v1/jobs", "/jobs"),
    ],
)
def test_a_base_url_with_a_wrong_end_is_told_of(client: httpx.Client, method: str, path: str, there: str) -> None:
    assert f"{path} is not a route of this API, but {there} is" in client.request(method, path).text


@pytest.mark.parametrize("path", ["/nothing", "/embeddings", "/v1/nothing", "/v1", "/v1/internal/objects/files/x"])
def test_what_is_at_no_door_is_not_said_to_be(client: httpx.Client, path: str) -> None:
    assert error_of(client.get(path), 404)["message"] == f"GET {path} is not a route of this API"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/jobs/ftjob-%00", "job_id"),
        ("/files/%00", "file_id"),
        ("/adapters/ft:a%00", "adapter"),
        ("/jobs?after=ftjob-%00", "after"),
        ("/adapters?base=%00", "base"),
    ],
)
def test_an_id_that_no_database_holds_is_named_by_its_place(client: httpx.Client, path: str, param: str) -> None:
    error = error_of(client.get(path), 400)
    assert error["param"] == param


@pytest.mark.parametrize("field", ["training_file", "validation_file", "model"])
def test_so_is_one_in_a_body(client: httpx.Client, field: str) -> None:
    body = {"model": "osora-tiny", "training_file": "file-1", field: "a\0b"}
    assert error_of(client.post("/jobs", json=body), 400)["param"] == field


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/files/file-1", "DELETE, GET, HEAD, OPTIONS"),
        ("PATCH", "/keys/key-1", "DELETE, OPTIONS"),
        ("GET", "/generate", "OPTIONS, POST"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("POST", "/docs", "GET, HEAD, OPTIONS"),
    ],
)
def test_405_says_all_that_is_allowed(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    response = client.request(method, path)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/health", "/jobs", "/jobs/ftjob-1", "/openapi.json", "/docs", "/nothing"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert head.content == b""
    assert head.status_code == get.status_code
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"training_file": None}, "training_file", "training_file is null: should be a valid string"),
        ({"sufix": "x"}, "sufix", "sufix is not known here"),
        ({"suffix": "Tickets v2"}, "suffix", "suffix is \"Tickets v2\": should have letters, digits, '.', '_' and '-'"),
        ({"suffix": "a\n"}, "suffix", "should have letters"),
        ({"suffix": "x" * 65}, "suffix", "at most 64"),
        ({"seed": True}, "seed", "seed is true: should be a valid integer"),
        ({"seed": "7"}, "seed", 'seed is "7"'),
        ({"metadata": {"k": 1}}, "metadata.k", "should be a valid string"),
        ({"metadata": {"k": "a\0b"}}, "metadata.k", "should not have a NUL character"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata", "should have at most 16 items, not 17"),
        ({"osora": {"max_length": 10**9}}, "osora.max_length", "should be less than or equal to 1048576"),
        ({"osora": {"learning_rate": [0.1] * 40_000}}, "osora.learning_rate", "should have at most 1000 items"),
        ({"model": "x" * 600}, "model", "should have at most 512 characters"),
        ({"method": {"type": "reinforcement"}}, "method.type", "should be 'supervised' or 'dpo'"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method", "`supervised` is given, and the type is 'dpo'"),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}},
            "method.dpo.hyperparameters.beta",
            "is 0",
        ),
        (
            {"method": {"type": "dpo"}, "osora": {"learning_rate": [0.1, 0.2, 0.3], "sigma_rate": [1, 2, 3]}},
            "osora.learning_rate",
            "make a sweep of 9 members, and a worker here trains at most 8 side by side",
        ),
        ({"hyperparameters": 3}, "hyperparameters", "should be a JSON object"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "or should be 'auto'"),
        ({"hyperparameters": {"epochs": 5}}, "hyperparameters.epochs", "is not known here"),
        ({"osora": {"rank": 0}}, "osora.rank", "osora.rank is 0"),
        ({"osora": {"rank": 129}}, "osora.rank", "over the basis's rank 128"),
        ({"osora": {"learning_rate": []}}, "osora.learning_rate", "should have at least 1 item"),
        ({"osora": {"learning_rate": [0.1, 0]}}, "osora.learning_rate[1]", "should be greater than 0"),
        ({"osora": {"learning_rate": [0.1, 0.2, 0.1]}}, "osora.learning_rate", "lists 0.1 twice"),
        ({"osora": {"learning_rate": "swoop"}}, "osora.learning_rate", "should be 'auto' or 'sweep'"),
        (
            {"osora": {"learning_rate": [0.1, 0.2, 0.3], "sigma_rate": [1, 2, 3]}},
            "osora.learning_rate",
            "make a sweep of 9 members, and a worker here trains at most 8 side by side",
        ),
        (
            {"hyperparameters": {"learning_rate_multiplier": 2}, "osora": {"learning_rate": "sweep"}},
            None,
            "choose one",
        ),
        ({"osora": {"sigma_rate": 0}}, "osora.sigma_rate", "osora.sigma_rate is 0"),
        ({"osora": {"mix": -1}}, "osora.mix", "osora.mix is -1"),
        ({"osora": {"mix_rate": [0.1, 0.1]}}, "osora.mix_rate", "lists 0.1 twice"),
        ({"osora": {"preset": "large"}}, "osora.preset", "'small', 'balanced' or 'quality'"),
        ({"osora": {"preset": ["small", "small"]}}, "osora.preset", "lists small twice"),
        ({"osora": {"preset": []}}, "osora.preset", "should have at least 1 item"),
        (
            {"osora": {"preset": ["small", "balanced", "quality"], "learning_rate": [0.1, 0.2, 0.3]}},
            "osora.learning_rate",
            "osora.learning_rate and osora.preset make a sweep of 9 members",
        ),
        ({"osora": {"rnk": 1}}, "osora.rnk", "is not known here"),
        ({"osora": {"target_modules": ["q_proj", 1]}}, "osora.target_modules[1]", "is 1"),
        ({"hyperparameters": {}, "method": {"type": "supervised"}}, None, "choose one"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 2}, "osora": {"learning_rate": 0.1}},
            None,
            "choose one",
        ),
        ({"model": "gpt-9"}, "model", "'gpt-9' is not on offer"),
    ],
)
def test_fields_of_a_job(client: httpx.Client, change: dict[str, Any], param: str | None, message: str) -> None:
    error = error_of(client.post("/jobs", json={**JOB, **change}), 400)
    assert error["param"] == param
    assert message in error["message"]


def test_a_missing_field(client: httpx.Client) -> None:
    error = error_of(client.post("/jobs", json={"model": "osora-tiny"}), 400)
    assert (error["param"], error["code"]) == ("training_file", "missing_field")


def test_an_unknown_field_comes_with_the_right_one(client: httpx.Client) -> None:
    error = error_of(client.post("/jobs", json={**JOB, "hyperparameter": {}}), 400)
    assert error["next_action"] == "did you mean 'hyperparameters'?"
    error = error_of(client.post("/jobs", json={**JOB, "osora": {"zzz": 1}}), 400)
    assert "rank" in error["next_action"]


def test_several_problems_are_counted(client: httpx.Client) -> None:
    error = error_of(client.post("/jobs", json={"suffix": "", "seed": -1}), 400)
    assert error["message"].endswith("(and 3 more fields with a problem)")


@pytest.mark.parametrize(
    ("content", "content_type", "code"),
    [
        (b"{", "application/json", "invalid_json"),
        (b'{"model": "\xff"}', "application/json", "invalid_json"),
        (b'{"model": 1, "model": 2}', "application/json", "invalid_value"),
        (b'{"model": "\\ud83d"}', "application/json", "invalid_value"),
        (b"[]", "application/json", "invalid_value"),
        (b"{}", "text/plain", "invalid_request"),
        (b'{"model": NaN}', "application/json", "invalid_value"),
        (b"", "application/json", "missing_field"),
    ],
)
def test_bodies_that_are_no_json_object(client: httpx.Client, content: bytes, content_type: str, code: str) -> None:
    response = client.post("/jobs", content=content, headers={"content-type": content_type})
    assert error_of(response, 400)["code"] == code


@pytest.mark.parametrize("query", ["limt=1", "limit=0", "limit=x", "order=up", "status=done", "after=x"])
def test_queries(client: httpx.Client, query: str) -> None:
    response = client.get(f"/jobs?{query}")
    assert error_of(response, 404 if query == "after=x" else 400)["param"] == query.partition("=")[0]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/generate", {"prompt": "hi \ud83d there"}, "prompt"),
        ("/generate", {"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ("/generate", {"prompt": "a", "\ud83d": 1}, "\\ud83d"),
        ("/generate", {"prompt": "a", "json_schema": {"enum": ["\ud83d"]}}, "json_schema.enum[0]"),
        ("/jobs", {**JOB, "osora": {"target_modules": ["\ud83d"]}}, "osora.target_modules[0]"),
        ("/jobs", {**JOB, "metadata": {"\ud83d": "x"}}, "metadata.\\ud83d"),
        ("/jobs", {**JOB, "suffix": "\ud83d"}, "suffix"),
        ("/keys", {"name": "\ud83d"}, "name"),
    ],
)
def test_half_a_surrogate_pair(client: httpx.Client, path: str, body: dict[str, Any], param: str) -> None:
    """And the next request on the same connection works."""
    headers = {"content-type": "application/json"}
    assert error_of(client.post(path, content=json.dumps(body), headers=headers), 400)["param"] == param
    assert client.get("/health").status_code == 200


def test_long_names_and_values_are_not_echoed(client: httpx.Client) -> None:
    for body in ({"x" * 3_000_000: 1}, {"metadata": {"k" * 3_000_000: "v"}}, {"model": "m" * 3_000_000}):
        assert len(client.post("/jobs", json={**JOB, **body}).content) < 4000
    assert len(client.get(f"/jobs/{'x' * 30_000}").content) < 4000


def test_metadata_to_filter_by_is_bounded(client: httpx.Client) -> None:
    query = "&".join(f"metadata[k{n}]=v" for n in range(900))
    error = error_of(client.get(f"/jobs?{query}"), 400)
    assert (error["param"], error["code"]) == ("metadata", "invalid_value")
    assert "at most 16" in error["message"]


def _pieces(total: int) -> Iterator[bytes]:
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    for _ in range(0, total, 10_000):
        yield b" " * 10_000


@pytest.mark.parametrize("path", ["/jobs", "/files"])
@pytest.mark.parametrize("is_length_declared", [True, False])
def test_a_body_that_is_too_large(
    client: httpx.Client, path: str, is_length_declared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered, not cut off, though the client sends all of it first; so the connection goes on."""
    monkeypatch.setattr(http_protocol, "DRAIN_SECONDS", 60.0)
    size = 12_000_000
    content = b" " * size if is_length_declared else _pieces(size)
    form = "multipart/form-data; boundary=x"
    kind = "application/json" if path == "/jobs" else form
    response = client.post(path, content=content, headers={"content-type": kind})
    error = error_of(response, 413)
    assert error["code"] == "too_large"
    assert "send less" in error["next_action"]
    assert "connection" not in response.headers
    assert client.get("/health").status_code == 200


def test_our_own_faults_say_nothing_of_the_inside(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(jobs, "list", fail)
    response = client.get("/jobs", headers={"x-request-id": "mine-1"})
    error = error_of(response, 500)
    assert "swordfish" not in response.text
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert response.headers["x-request-id"] == "mine-1"
    assert "mine-1" in error["next_action"]
    assert "connection" not in response.headers, "it stays open: the next request goes there"
    assert client.get("/health").status_code == 200


def test_a_database_that_is_gone(client: httpx.Client, registry: Registry) -> None:
    with registry.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE api_keys RENAME TO elsewhere")
    response = client.get("/jobs")
    assert error_of(response, 503)["code"] == "database_unavailable"
    assert response.headers["retry-after"]


def test_a_locked_database_holds_up_no_reader_and_no_writer_for_long(client: httpx.Client, registry: Registry) -> None:
    """Another process holds SQLite's write lock. More writers come than there are threads; some wait, for a while."""
    path = registry.engine.url.database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as locker, ThreadPoolExecutor(60) as threads:
        locker.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        writers = [threads.submit(client.post, "/keys", json={"name": f"key {number}"}) for number in range(60)]
        reads = 0
        while not all(writer.done() for writer in writers):
            assert client.get("/keys").status_code == 200
            reads += 1
        took = time.monotonic() - began
        locker.execute("ROLLBACK")
    assert reads > 2, "readers did not wait for the writers' end"
    assert took < 25
    for writer in writers:
        response = writer.result()
        assert error_of(response, 503)["code"] == "database_unavailable"
        assert response.headers["retry-after"]
    assert client.post("/keys", json={"name": "after"}).status_code == 200


class TestDiskFull:
    """Wherever the room ends, one answer."""

    def expect(self, response: httpx.Response) -> None:
        error = error_of(response, 507)
        assert (error["code"], error["type"]) == ("storage_full", "server_error")
        assert error["next_action"]

    def upload(self, client: httpx.Client) -> httpx.Response:
        row = json.dumps({"prompt": "a", "completion": "b"})
        return client.post("/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", row)})

    def test_of_temporary_files(self, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        @contextmanager
        def full(**kwargs: Any) -> Iterator[Any]:
            with open("/dev/full", "wb", buffering=0) as file:
                yield file

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
        self.expect(self.upload(client))

    def test_of_the_database(self, client: httpx.Client, registry: Registry, server: Server) -> None:
        file_id = self.upload(client).json()["id"]
        with registry.transaction() as session:
            for change in ("INSERT", "DELETE"):
                session.connection().exec_driver_sql(
                    f"CREATE TRIGGER grow_by_{change} BEFORE {change} ON files "
                    "BEGIN INSERT INTO blobs VALUES (hex(randomblob(8)), 0, 0, randomblob(100000)); END"
                )

        @event.listens_for(server.config.app.state.services.registry.engine, "begin")
        def leave_no_room(connection: Connection) -> None:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")

        self.expect(self.upload(client))
        self.expect(client.delete(f"/files/{file_id}"))
        assert client.get(f"/files/{file_id}").status_code == 200

    def test_of_the_object_store(self, client: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any) -> None:
            raise GenericError("Generic LocalFileSystem error: Unable to copy: No space left on device (os error 28)")

        monkeypatch.setattr(server.config.app.state.services.registry.store, "put", fail)
        self.expect(self.upload(client))

    def test_room_is_left_for_deleting(self, client: httpx.Client, server: Server) -> None:
        file_id = self.upload(client).json()["id"]
        services = server.config.app.state.services
        wanted = {"min_free_bytes": 2**60}
        object.__setattr__(services.registry, "settings", services.settings.model_copy(update=wanted))
        self.expect(self.upload(client))
        disk = client.get("/ready").json()["checks"]["disk"]
        assert not disk["ok"]
        assert disk["detail"].startswith("data directory: ")
        assert client.delete(f"/files/{file_id}").status_code == 200


def test_request_ids(anonymous: httpx.Client) -> None:
    assert anonymous.get("/health", headers={"x-request-id": "abc.1"}).headers["x-request-id"] == "abc.1"
    ids = {anonymous.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"] for _ in "12"}
    assert len(ids) == 2
    assert "a b" not in ids
