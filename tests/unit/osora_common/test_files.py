"""A file is there whole or not at all, and nothing is left beside it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from osora_common.files import write_whole


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".tmp"]


def test_the_pieces_make_the_file(tmp_path: Path) -> None:
    path = tmp_path / "basis"
    path.write_bytes(b"old")
    write_whole(path, [b"one ", memoryview(b"two")])
    assert path.read_bytes() == b"one two"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise error

    with pytest.raises(error):
        write_whole(tmp_path / "basis", pieces())
    assert not (tmp_path / "basis").exists()
    assert leftovers(tmp_path) == []


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "basis"
    program = (
        "import os, sys, pathlib\n"
        "from osora_common.files import write_whole\n"
        "write_whole(pathlib.Path(sys.argv[1]), (os.abort() if last else b'half' for last in (False, True)))\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", program, str(path)], timeout=60, check=False, stderr=subprocess.DEVNULL
    )
    assert died.returncode != 0
    assert len(leftovers(tmp_path)) == 1
    (tmp_path / "basis-of-another.1.tmp").write_bytes(b"still being written")
    write_whole(path, [b"whole"])
    assert path.read_bytes() == b"whole"
    assert leftovers(tmp_path) == ["basis-of-another.1.tmp"]
