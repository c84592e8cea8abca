"""What an installation writes is its owner's alone, also where it was made before or by hand."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from osora_common.private_files import keep_private


@pytest.fixture(autouse=True)
def _mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_directory_and_what_is_written_from_then_on(tmp_path: Path) -> None:
    data_dir = tmp_path / "a" / "b"
    assert keep_private(data_dir)
    (data_dir / "anything").write_text("x")
    assert (mode(data_dir), mode(data_dir / "anything")) == (0o700, 0o600)


def test_an_installation_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    (tmp_path / "usage").mkdir()
    (tmp_path / "osora.db").write_text("x")
    made = {tmp_path: 0o755, tmp_path / "objects": 0o775, tmp_path / "usage": 0o755, tmp_path / "osora.db": 0o644}
    for path, found in made.items():
        path.chmod(found)
    assert keep_private(tmp_path)
    assert [mode(path) for path in made] == [0o700, 0o700, 0o700, 0o600]


def test_a_directory_that_holds_something_else_is_left_and_told(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "objects").symlink_to("/")
    tmp_path.chmod(0o755)
    root = mode(Path("/"))
    assert not keep_private(tmp_path)
    assert (mode(tmp_path), mode(Path("/"))) == (0o755, root)
