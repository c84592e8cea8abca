"""A walk over every operation of the OpenAPI document with values that nobody means well: never a fault of ours.

Each run takes another part of the walk, which would take minutes; a failure says what was sent.
"""

import json
import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from registry.context import Registry
from registry.models import Adapter
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import BASIS_KEY, FakeInference

DEEP: Any = []
for _ in range(80):
    DEEP = [DEEP]

VALUES: list[Any] = [
    *("", " ", "\0", "a\0b", "\ud83d", "x\udc00y", "\U0001f600", "\ufeff", "x" * 70_000, "../../etc/passwd", "'\"\\%_"),
    *(0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0, float("nan"), float("-inf")),
    *(True, None, [], {}, [None], ["\ud83d"], [[]], {"": None}, {"a\0": "b"}, {"\ud83d": 1}, {"$ref": "#"}, DEEP),
    [0] * 5000,
]
WRITTEN = [
    *("%00", "a%00b", "%ED%A0%BD", "%FF%FE", "%F0%9F%98%80", "%0d%0ax: y", "%2e%2e%2f", "%25", "%27%22%5c", "x" * 5000),
    *("-1", "0", "99999999999999999999", "1" * 400, "1e999", "NaN", "[]", "{}", "null", "ft:a:b:c:d", "ftckpt_x_1"),
]


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded machine nothing is down because it is slow for once."""
    monkeypatch.setattr("api.health.endpoints._PATIENCE_SECONDS", 60)


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def some(things: list[Any]) -> list[Any]:
    return random.sample(things, len(things) // 4)


def expect_no_fault(response: httpx.Response, sent: str) -> None:
    assert response.status_code < 500, f"{sent}: {response.text}"
    if response.status_code >= 400:
        has_our_shape = response.url.path != "/v1/messages"
        error = error_of(response, response.status_code) if has_our_shape else response.json()["error"]
        message = error["message"]
        assert len(message) <= 2000, sent
        assert "Traceback" not in message, sent


def test_paths_and_queries(
    client: httpx.Client, document: dict[str, Any], registry: Registry, adapter: Adapter
) -> None:
    registry.store.put(BASIS_KEY, b"basis")
    client.post("/aliases", json={"name": "triage", "target": adapter.id}).raise_for_status()
    known = {
        "job_id": adapter.job_id,
        "adapter": adapter.id,
        "file_id": "file-1",
        "upload_id": "upload_1",
        "key_id": "key-1",
        "endpoint_id": "webhook-1",
        "base": "osora-tiny",
        "model": adapter.name,
        "name": "triage",
        "checkpoint": adapter.name,
        "permission_id": "cp_1",
        "tenant": "acme",
    }
    for method, path, operation in operations(document):
        of_path = re.findall(r"{(\w+)(?::path)?}", path)
        good = path.replace(":path", "").format(**known)
        tried = [good.replace(known[name], value) for name in of_path for value in WRITTEN]
        of_query = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
        names = [*of_query, "%00", "metadata%5Ba%22b%5D", "metadata[%00]", "metadata[$.a]"] if method == "GET" else []
        tried += [f"{good}?{name}={value}" for name in names for value in WRITTEN]
        for url in some(tried):
            expect_no_fault(client.request(method, url), f"{method} {url}")


def bodies(document: dict[str, Any], schema: dict[str, Any], example: Any) -> Iterator[Any]:
    """The example with each field of the schema, at every level, replaced by each value."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    yield from VALUES
    branches = [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]
    for branch in branches[1:]:
        if "$ref" in branch:
            yield from bodies(document, branch, example if isinstance(example, dict) else {})
    for name, field in schema.get("properties", {}).items():
        whole = example if isinstance(example, dict) else {}
        for value in bodies(document, field, whole.get(name)):
            yield {**whole, name: value}
    if "items" in schema:
        yield from ([value] for value in bodies(document, schema["items"], {}))
    if schema.get("type") == "object":
        whole = example if isinstance(example, dict) else {}
        yield from ({**whole, name: 1} for name in VALUES if isinstance(name, str))


def test_json_bodies(client: httpx.Client, document: dict[str, Any]) -> None:
    walked = 0
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            continue
        schema = content["application/json"]["schema"]
        (example, *_) = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["examples"]
        for body in some(list(bodies(document, schema, example))):
            sent = json.dumps(body)
            response = client.request(method, path, content=sent, headers={"content-type": "application/json"})
            expect_no_fault(response, f"{method} {path} {sent[:200]}")
            walked += 1
    assert walked > 200, "the document's schemas were not found"


def test_forms(client: httpx.Client) -> None:
    row = b'{"prompt": "a", "completion": "b"}\n'
    for value in [v for v in VALUES if isinstance(v, str)]:
        text = value.encode("utf-8", "surrogatepass")
        for purpose, filename, content in ((text, b"a", row), (b"fine-tune", text, row), (b"fine-tune", b"a", text)):
            body = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + purpose
            body += b'\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="' + filename
            body += b'"\r\n\r\n' + content + b"\r\n--x--\r\n"
            response = client.post("/files", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
            expect_no_fault(response, repr(body[:300]))


def test_headers_of_requests_that_are_sent_again(client: httpx.Client) -> None:
    row = ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n')
    values = [v.encode("utf-8", "surrogatepass") for v in VALUES if isinstance(v, str)]
    for value in [*values, b"\xb2", b"-1", b"1" * 5000, b"1.5"]:
        if b"\0" in value or value != value.strip() or len(value) > 10_000:  # no HTTP client or server takes those
            continue
        for name in (b"idempotency-key", b"x-stainless-retry-count"):
            response = client.post(
                "/files", headers=[(name, value)], data={"purpose": "fine-tune"}, files={"file": row}
            )
            expect_no_fault(response, f"{name!r}: {value[:60]!r}")


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=" + b"9" * 400 + b"-",
        b"bytes=-1",
        b"\xff",
        b"osk-\xed\xa0\xbd",
        b"'\"",
        b"x" * 5000,
        b"ftevent-" + b"9" * 100,
    ],
)
def test_headers(client: httpx.Client, registry: Registry, adapter: Adapter, value: bytes) -> None:
    registry.store.put(BASIS_KEY, b"basis")
    for name in (
        "authorization",
        "last-event-id",
        "if-none-match",
        "accept",
        "x-request-id",
        "content-type",
        "range",
        "if-range",
    ):
        for path in (
            "/jobs", f"/jobs/{adapter.job_id}/events", f"/adapters/{adapter.id}/download", "/bases/osora-tiny/basis",
        ):  # fmt: skip
            expect_no_fault(client.get(path, headers={name: value}), f"{path} {name}: {value!r}")
    headers = {"authorization": b"Bearer " + value}
    expect_no_fault(client.get(f"/adapters/{quote(adapter.id)}", headers=headers), f"Bearer {value!r}")
