"""Pulling a basis: taken up where it was cut, checked, whole or not at all."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import pytest
from typer.testing import CliRunner

from osora import Osora, OsoraConnectionError
from osora.cli import app
from osora.errors import OsoraError
from osora.sdk.basis import fingerprint_of
from osora_core.basis import Basis, BasisCache, compute_basis
from osora_core.weights import ALL_LINEAR, fingerprint_base
from tests.support.tiny_models import make_model

from ..conftest import Answer, FakeService, Request


class Stored:
    """A basis file as the service has it; each request gets at most `piece` bytes of what it asked for."""

    def __init__(self, basis: Basis, content: bytes) -> None:
        self.basis, self.content, self.piece = basis, content, len(content)
        self.starts: list[int] = []
        self.fetched = False

    def answer(self, request: Request) -> Answer:
        wanted = request.headers.get("range")
        start = 0
        if wanted:
            assert request.headers["if-range"] == f'"{self.basis.fingerprint}"'
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.starts.append(start)
        rest = self.content[start:]
        headers = {"etag": f'"{self.basis.fingerprint}"'}
        return Answer(206 if start else 200, rest[: self.piece], promised=len(rest), headers=headers)


def kept(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix != ".lock"]


@pytest.fixture
def stored(service: FakeService, tmp_path: Path) -> Stored:
    model = make_model()
    basis = compute_basis(model, ALL_LINEAR, 8, fingerprint_base(model))
    basis.save(tmp_path / "service.safetensors")
    made = Stored(basis, (tmp_path / "service.safetensors").read_bytes())
    for name in ("osora-tiny", basis.fingerprint):
        service.routes["GET", f"/bases/{name}/basis"] = made.answer
    return made


def test_the_hash_is_the_one_of_the_library(stored: Stored, tmp_path: Path) -> None:
    assert fingerprint_of(tmp_path / "service.safetensors") == stored.basis.fingerprint


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_a_file_that_is_no_basis_has_no_hash_of_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert fingerprint_of(tmp_path / "file") != "a" * 64


def test_a_pulled_basis_is_found_by_the_library(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OSORA_CACHE", "~/cache")  # as a file of settings has it, which no shell reads
    with Osora() as osora:
        path = osora.pull_basis("osora-tiny")
        assert osora.pull_basis("osora-tiny") == path
    assert path == tmp_path / "cache" / "basis" / f"{stored.basis.fingerprint}.safetensors"
    assert len(stored.starts) == 3, "what is there was fetched again"
    found = BasisCache.default().find(stored.basis.base_fingerprint, stored.basis.fingerprint, 8)
    assert found.fingerprint == stored.basis.fingerprint


def test_a_cut_download_goes_on_while_it_gets_further(stored: Stored, tmp_path: Path) -> None:
    stored.piece = len(stored.content) // 3
    with Osora() as osora:
        path = osora.pull_basis(stored.basis.fingerprint, tmp_path / "bases")
    assert path.read_bytes() == stored.content
    assert stored.starts == [0, stored.piece, 2 * stored.piece, 3 * stored.piece][: len(stored.starts)]
    assert kept(path.parent) == [path]


def test_a_part_stays_for_the_next_call(stored: Stored, service: FakeService, tmp_path: Path) -> None:
    folder, whole = tmp_path / "bases", stored.content
    promised = len(whole)
    path = f"/bases/{stored.basis.fingerprint}/basis"
    service.on(
        "GET", path, Answer(200, whole[:100], promised=promised), Answer(206, b"", promised=promised - 100),
    )  # fmt: skip
    with Osora() as osora:
        with pytest.raises(OsoraConnectionError):
            osora.pull_basis(stored.basis.fingerprint, folder)
        (part,) = kept(folder)
        assert part.read_bytes() == whole[:100]
        service.routes["GET", path] = stored.answer
        assert osora.pull_basis(stored.basis.fingerprint, folder).read_bytes() == whole
    assert stored.starts == [100]
    assert len(kept(folder)) == 1


def test_two_that_pull_the_same_basis_take_turns(stored: Stored, service: FakeService, tmp_path: Path) -> None:
    stored.piece = len(stored.content) // 3
    asked = Semaphore(0)

    def named(request: Request) -> Answer:
        asked.release()
        return stored.answer(request)

    def fetched(request: Request) -> Answer:
        if not stored.fetched:
            assert all(asked.acquire(timeout=60) for _ in range(2)), "the second one never began"
        stored.fetched = True
        return stored.answer(request)

    service.routes["GET", "/bases/osora-tiny/basis"] = named
    service.routes["GET", f"/bases/{stored.basis.fingerprint}/basis"] = fetched
    with Osora() as one, Osora() as other, ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda osora: osora.pull_basis("osora-tiny", tmp_path / "bases"), (one, other)))
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == stored.content
    assert len(stored.starts) == 2 + 4, "named twice, fetched in four pieces, once"


def test_a_service_that_cannot_go_on_begins_again(stored: Stored, service: FakeService, tmp_path: Path) -> None:
    folder = tmp_path / "bases"
    folder.mkdir()
    (folder / f".{stored.basis.fingerprint}.part").write_bytes(b"of an older file")
    service.on("GET", f"/bases/{stored.basis.fingerprint}/basis", Answer(200, stored.content))
    with Osora() as osora:
        assert osora.pull_basis(stored.basis.fingerprint, folder).read_bytes() == stored.content


def test_another_content_is_refused_and_not_kept(stored: Stored, tmp_path: Path) -> None:
    stored.content = stored.content[:-1] + bytes([stored.content[-1] ^ 1])
    with Osora() as osora, pytest.raises(OsoraError, match=f"is not the basis {stored.basis.fingerprint}"):
        osora.pull_basis("osora-tiny", tmp_path / "bases")
    assert kept(tmp_path / "bases") == []


def test_the_command_says_where_it_is_and_what_to_set(stored: Stored, service: FakeService, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bases", "pull", "osora-tiny", str(tmp_path / "bases")])
    assert result.exit_code == 0, result.output
    assert f"{stored.basis.fingerprint}.safetensors" in result.output
    assert f"OSORA_BASIS_FROM={tmp_path / 'bases'}" in result.output
    told = json.loads(CliRunner().invoke(app, ["bases", "pull", "osora-tiny", str(tmp_path), "--json"]).stdout)
    assert told["bytes"] == len(stored.content)
    missing = CliRunner().invoke(app, ["bases", "pull", "other", str(tmp_path / "other")])
    assert missing.exit_code == 5


def test_the_command_lists_bases(service: FakeService) -> None:
    bases = [{"name": "osora-tiny", "loaded": True, "bytes": 2048, "basis": {"rank": 128}}, {"name": "big"}]
    service.on("GET", "/bases", Answer(body={"data": bases}))
    lines = CliRunner().invoke(app, ["bases"]).stdout.splitlines()
    expected = [["osora-tiny", "ready", "yes", "2.0", "KiB", "128"], ["big", "ready", "no"]]
    assert [line.split() for line in lines[1:]] == expected
    assert json.loads(CliRunner().invoke(app, ["bases", "list", "--json"]).stdout) == bases
