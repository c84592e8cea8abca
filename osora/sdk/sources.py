"""Files on this machine: what is uploaded, and what is downloaded."""

import os
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias

from osora.errors import OsoraUsageError

FileSource: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]
"""What can be uploaded: the path of a file, its bytes, or a file opened for reading in binary mode."""

Progress: TypeAlias = Callable[[int, int], object]
"""Is told how many bytes have been sent, and of how many; less than before when an attempt begins anew."""

_IN_MEMORY_BYTES = 64 * 1024 * 1024
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


class Source:
    """A file to be uploaded: its name, its size, and its bytes from any place on."""

    def __init__(self, name: str, stream: IO[bytes], progress: Progress | None) -> None:
        self.name = name
        self._stream = stream
        self._start = stream.tell()
        self._progress = progress
        self.size = stream.seek(0, SEEK_END) - self._start

    def part(self, start: int, size: int) -> "Part":
        """So many bytes from there on (less at the end)."""
        return Part(self._stream, self._start + start, min(size, self.size - start), self._told_from(start))

    def _told_from(self, start: int) -> Callable[[int], object]:
        progress = self._progress
        return lambda sent: progress and progress(start + sent, self.size)


class Part:
    """A stretch of a file, as a stream that httpx can send; it says how far it has come."""

    def __init__(self, stream: IO[bytes], start: int, size: int, tell: Callable[[int], object]) -> None:
        self._stream, self._start, self._size, self._tell = stream, start, size, tell
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._at
        self._stream.seek(self._start + self._at)
        piece = self._stream.read(left if size < 0 else min(size, left))
        self._at += len(piece)
        if piece:
            self._tell(self._at)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset if whence == 0 else self._size + offset if whence == SEEK_END else self._at + offset
        return self._at

    def tell(self) -> int:
        return self._at


@contextmanager
def opened(file: FileSource, name: str | None, default_name: str, progress: Progress | None) -> Iterator[Source]:
    """The file, ready to be sent as often as need be.

    Raises OsoraUsageError for what is no file, and OSError for a path that cannot be read.
    """
    if isinstance(file, bytes):
        yield Source(sendable(name or default_name), BytesIO(file), progress)
    elif isinstance(file, str | os.PathLike):
        with Path(file).open("rb") as stream:
            yield Source(sendable(name or Path(file).name), stream, progress)
    else:
        with _seekable(file) as stream:
            found = getattr(file, "name", None)
            own = Path(found).name if isinstance(found, str) else default_name
            yield Source(sendable(name or own), stream, progress)


@contextmanager
def _seekable(file: Any) -> Iterator[IO[bytes]]:
    if not hasattr(file, "read") or not isinstance(file.read(0), bytes):
        message = f"A file to be uploaded is a path, bytes or a file opened with 'rb', not {type(file).__name__}"
        raise OsoraUsageError(message, "give its path")
    if file.seekable():
        yield file
        return
    # It may have to be sent twice.
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as copy:
        while piece := file.read(1024 * 1024):
            copy.write(piece)
        copy.seek(0)
        yield copy


def sendable(file_name: str) -> str:
    """A name on a disk need not be UTF-8; it is only shown."""
    return os.fsencode(file_name).decode(errors="replace")


def zipped(folder: Path) -> IO[bytes]:
    """An adapter's folder, as PEFT saves it, in an archive of the two files that matter; gone when it is closed.

    Raises OsoraUsageError for a folder that has them not.
    """
    missing = [name for name in _ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        message = f"{folder} is no adapter: it has no {' and no '.join(missing)}"
        raise OsoraUsageError(message, "give the folder that PEFT's `save_pretrained` wrote, or a ZIP of it")
    archive = tempfile.TemporaryFile()  # noqa: SIM115  (whoever asked for it closes it)
    try:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
            for name in _ADAPTER_FILES:
                files.write(folder / name, name)
        archive.seek(0)
    except BaseException:
        archive.close()
        raise
    return archive


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that gets its name when all is written, and is gone if that fails."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as out:
            yield out
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
