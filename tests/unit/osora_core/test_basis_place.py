"""Bases from a URL: whole or not at all, and the service's key for the service alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from osora_core.basis import Basis, BasisCache, compute_basis
from osora_core.errors import CorruptArtifact, UserError
from osora_core.identity import Identity
from osora_core.weights import ALL_LINEAR, fingerprint_base
from tests.support.servers import LocalServer, QuietHandler, serving


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q_proj = nn.Linear(12, 10)


class Host:
    """Files by path; `cut` ends each answer in its middle; `keys` are those that were sent along."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.cut = False
        self.keys: list[str | None] = []
        self.url = ""


@contextmanager
def hosting() -> Iterator[Host]:
    host = Host()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            host.keys.append(self.headers.get("authorization"))
            if self.path in host.moved:
                self.send_response(302)
                self.send_header("location", host.moved[self.path])
                self.end_headers()
                return
            data = host.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("content-length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write((data or b"")[: len(data or b"") // 2] if host.cut else data or b"")

    with serving(LocalServer(("127.0.0.1", 0), Handler)) as host.url:
        yield host


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting() as made:
        yield made


@pytest.fixture
def basis(tmp_path: Path) -> Basis:
    model = Small()
    made = compute_basis(model, ALL_LINEAR, 4, fingerprint_base(model))
    made.save(tmp_path / "basis.safetensors")
    return made


def find(cache: BasisCache, basis: Basis) -> Basis:
    return cache.find(basis.base_fingerprint, basis.fingerprint, 4)


@pytest.mark.parametrize("path", ["/some/folder", "/bases/{hash}/basis"])
def test_a_basis_is_fetched_once(host: Host, basis: Basis, tmp_path: Path, path: str) -> None:
    named = path.replace("{hash}", basis.fingerprint) if "{hash}" in path else f"{path}/{basis.fingerprint}.safetensors"
    host.files[named] = (tmp_path / "basis.safetensors").read_bytes()
    cache = BasisCache(tmp_path / "cache", elsewhere=host.url + path)
    for _ in range(2):
        assert find(cache, basis).fingerprint == basis.fingerprint
    assert len(host.keys) == 1


def test_what_is_cut_or_wrong_is_not_kept_and_can_be_fetched_again(host: Host, basis: Basis, tmp_path: Path) -> None:
    name, whole = f"/{basis.fingerprint}.safetensors", (tmp_path / "basis.safetensors").read_bytes()
    cache = BasisCache(tmp_path / "cache", elsewhere=host.url)
    host.files[name], host.cut = whole, True
    with pytest.raises(UserError, match=f"broke off after {len(whole) // 2} of {len(whole)} bytes"):
        find(cache, basis)
    host.files[name], host.cut = whole[:-1] + bytes([whole[-1] ^ 1]), False
    with pytest.raises(CorruptArtifact, match="holds"):
        find(cache, basis)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    host.files[name] = whole
    assert find(cache, basis).fingerprint == basis.fingerprint


def test_a_place_without_it_is_no_error_and_one_that_is_down_is_one_sentence(
    host: Host, basis: Basis, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is not stored"):
        find(BasisCache(tmp_path / "cache", elsewhere=host.url), basis)
    for place in ("http://127.0.0.1:1", "http://[", "http://127.0.0.1:x"):
        with pytest.raises(UserError, match="cannot be fetched from") as refused:
            find(BasisCache(tmp_path / "cache", elsewhere=place), basis)
        assert "OSORA_BASIS_FROM" in str(refused.value.next_action)
    # A machine that computes the wanted one needs no place.
    cache = BasisCache(tmp_path / "cache", elsewhere=host.url)
    wanted = Identity(basis.base_fingerprint, basis.fingerprint)
    assert cache.get(Small(), ALL_LINEAR, 4, torch.device("cpu"), wanted).fingerprint == basis.fingerprint


@pytest.mark.parametrize("wanted", [True, False])
def test_a_folder_that_is_not_there_is_said_at_once(
    basis: Basis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setattr("osora_core.basis.compute_basis", lambda *_, **__: pytest.fail("it was computed"))
    cache = BasisCache(tmp_path / "cache", elsewhere=str(tmp_path / "mistyped"))
    identity = Identity(basis.base_fingerprint, basis.fingerprint) if wanted else Identity()
    with pytest.raises(UserError, match=r"OSORA_BASIS_FROM is '.*mistyped', which is no folder here"):
        cache.get(Small(), ALL_LINEAR, 4, torch.device("cpu"), identity)


def test_the_key_goes_to_the_service_and_to_nobody_else(
    host: Host, basis: Basis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSORA_API_KEY", "osk-secret")
    monkeypatch.setenv("OSORA_URL", host.url + "/")
    name, whole = f"/{basis.fingerprint}.safetensors", (tmp_path / "basis.safetensors").read_bytes()
    with hosting() as other:
        for one in (host, other):
            one.files[name] = whole
        find(BasisCache(tmp_path / "one", elsewhere=host.url), basis)
        find(BasisCache(tmp_path / "two", elsewhere=other.url), basis)
        host.moved[name] = other.url + name
        find(BasisCache(tmp_path / "three", elsewhere=host.url), basis)
        assert host.keys == ["Bearer osk-secret"] * 2
        assert other.keys == [None, None]
