"""Bases: listed, and their bases downloaded, whole or from where a download was cut."""

from collections.abc import Callable

import httpx
import pytest

from registry.context import Registry
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import BASIS, BASIS_KEY, FakeInference

CONTENT = bytes(range(256)) * 12_000  # three pieces of a `db:` store


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


@pytest.fixture
def stored(registry: Registry) -> bytes:
    registry.store.put(BASIS_KEY, CONTENT)
    return CONTENT


def test_a_list_says_which_basis_and_not_where_it_lies(client: httpx.Client) -> None:
    (base,) = client.get("/bases").json()["data"]
    assert (base["name"], base["loaded"]) == ("osora-tiny", True)
    assert base["basis"] == {"rank": 128, "fingerprint": BASIS}


@pytest.mark.parametrize("name", ["osora-tiny", BASIS])
def test_a_basis_by_the_bases_name_and_by_its_own_hash(client: httpx.Client, stored: bytes, name: str) -> None:
    response = client.get(f"/bases/{name}/basis")
    assert response.status_code == 200
    assert response.content == stored
    assert response.headers["etag"] == f'"{BASIS}"'
    assert response.headers["content-length"] == str(len(stored))
    assert f"{BASIS}.safetensors" in response.headers["content-disposition"]
    again = client.get(f"/bases/{name}/basis", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = client.head(f"/bases/{name}/basis")
    assert (head.headers["content-length"], head.content) == (str(len(stored)), b"")


def test_a_base_with_a_slash_in_its_name(
    client: httpx.Client, inference: dict[str, FakeInference], stored: bytes
) -> None:
    next(iter(inference.values())).bases = ["owner/name"]
    for path in ("/bases/owner/name/basis", "/bases/owner%2Fname/basis"):
        assert client.get(path).content == stored


def test_a_cut_download_goes_on(client: httpx.Client, stored: bytes) -> None:
    for start in (1, 1024 * 1024, 2 * 1024 * 1024 + 17, len(stored) - 1):
        headers = {"range": f"bytes={start}-", "if-range": f'"{BASIS}"'}
        part = client.get("/bases/osora-tiny/basis", headers=headers)
        assert (part.status_code, part.content) == (206, stored[start:])
        assert part.headers["content-range"] == f"bytes {start}-{len(stored) - 1}/{len(stored)}"
        assert part.headers["content-length"] == str(len(stored) - start)


@pytest.mark.parametrize(
    "headers",
    [
        {"range": "bytes=5-", "if-range": '"another"'},
        {"range": "bytes=0-"},
        {"range": "bytes=5-9"},
        {"range": "bytes=-5"},
        {"range": "lines=5-"},
        {"range": f"bytes={len(CONTENT)}-"},
    ],
)
def test_other_ranges_are_answered_with_all_of_it(client: httpx.Client, stored: bytes, headers: dict[str, str]) -> None:
    response = client.get("/bases/osora-tiny/basis", headers=headers)
    assert (response.status_code, response.content) == (200, stored)


def test_who_may_have_it(anonymous: httpx.Client, client_with: Callable[..., httpx.Client], stored: bytes) -> None:
    path = "/bases/osora-tiny/basis"
    error_of(anonymous.get(path), 401)
    assert error_of(client_with("train").get(path), 403)["code"] == "insufficient_scope"
    assert client_with("read", tenant="other").get(path).content == stored


def test_what_is_not_there_is_said(client: httpx.Client, inference: dict[str, FakeInference]) -> None:
    assert error_of(client.get("/bases/osora-tiny/basis"), 503)["code"] == "basis_not_stored"
    for name in ("other", "c" * 64, "..%2F..%2Fetc"):
        error = error_of(client.get(f"/bases/{name}/basis"), 404)
        assert (error["code"], "list the bases" in error["next_action"]) == ("base_not_found", True)


def test_a_base_that_nobody_has_loaded(
    client: httpx.Client, inference: dict[str, FakeInference], stored: bytes
) -> None:
    next(iter(inference.values())).bases = []
    assert error_of(client.get("/bases/osora-tiny/basis"), 503)["code"] == "base_not_loaded"
