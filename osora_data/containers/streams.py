"""Bytes from bytes, a piece at a time: decompressed, decoded from UTF-16, and counted."""

import codecs
import io
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import zstandard

from osora_data.problems import BrokenFileError

PIECE_BYTES = 1 << 20
_WORTH_GIVING = 1 << 16
_ZSTD_BYTES = 1 << 8
"""So many compressed bytes at once: of the most repetitive they make 8 MiB."""
_LARGEST_WINDOW = 1 << 27

_REPACK = "compress the file again, or upload it as it is"


class Pieces(io.RawIOBase):
    """A stream of the pieces that an iterator gives. What the iterator raises comes when all before it was read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


def buffered(pieces: Iterator[bytes]) -> io.BufferedReader:
    """These pieces as a stream with lines, of which the beginning can be looked at."""
    return io.BufferedReader(Pieces(_coalesced(pieces)), PIECE_BYTES)


def _coalesced(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces put together. An error comes when all before it was given."""
    kept: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            kept.append(piece)
            size += len(piece)
            if size >= _WORTH_GIVING:
                yield b"".join(kept)
                kept, size = [], 0
    except BrokenFileError:
        if size:
            yield b"".join(kept)
        raise
    yield b"".join(kept)


def bounded(pieces: Iterator[bytes], most: int | None) -> Iterator[bytes]:
    """Raises BrokenFileError once they come to more than `most` bytes."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if most is not None and total > most:
            raise BrokenFileError(f"is more than {most} bytes once it is decompressed", "split the file")
        yield piece


def gunzipped(source: IO[bytes]) -> Iterator[bytes]:
    """The bytes of all members of a gzip file. Raises BrokenFileError where it is damaged or cut off."""

    def begin() -> Any:
        return zlib.decompressobj(wbits=31)

    def decompress(member: Any, data: bytes) -> Iterator[bytes]:
        while data and not member.eof:
            yield member.decompress(data, PIECE_BYTES)
            data = member.unconsumed_tail

    return _decompressed(source, "gzip", begin, decompress, b"\x1f\x8b", 1 << 16, zlib.error)


def unzstd(source: IO[bytes]) -> Iterator[bytes]:
    """The bytes of all frames of a Zstandard file. Raises BrokenFileError where it is damaged or cut off."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)

    def decompress(frame: Any, data: bytes) -> Iterator[bytes]:
        yield frame.decompress(data)

    return _decompressed(
        source,
        "Zstandard",
        decompressor.decompressobj,
        decompress,
        b"\x28\xb5\x2f\xfd",
        _ZSTD_BYTES,
        zstandard.ZstdError,
    )


def _decompressed(
    source: IO[bytes],
    name: str,
    begin: Callable[[], Any],
    decompress: Callable[[Any, bytes], Iterator[bytes]],
    magic: bytes,
    step: int,
    error_type: type[Exception],
) -> Iterator[bytes]:
    unit, began, data = begin(), False, b""
    try:
        while data or (data := source.read(step)):
            if unit.eof:
                data = data.lstrip(b"\0")  # padding, as tar and tapes leave it
                if not data:
                    continue
                data += source.read(len(magic))
                if not data.startswith(magic):
                    raise BrokenFileError(f"has other bytes behind the {name} data", _REPACK)
                unit = begin()
            began = True
            yield from decompress(unit, data)
            data = unit.unused_data if unit.eof else b""
    except error_type as error:
        raise BrokenFileError(f"is damaged: its {name} data cannot be read further", _REPACK) from error
    if began and not unit.eof:
        raise BrokenFileError(f"is cut off: its {name} data end in the middle", "upload the whole file")


def pieces_of(source: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a file."""
    while piece := source.read(PIECE_BYTES):
        yield piece


def from_utf16(pieces: Iterator[bytes], order: str) -> Iterator[bytes]:
    """UTF-16 as UTF-8. Raises BrokenFileError where it is no text."""
    decoder = codecs.getincrementaldecoder(f"utf-16-{order}")()
    for piece in pieces:
        try:
            yield decoder.decode(piece).encode()
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(f"utf-16-{order}").encode()
            raise BrokenFileError(f"is not UTF-16: {error.reason}", "save the file as UTF-8") from error
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise BrokenFileError("is cut off: its last character is half there", "save the file as UTF-8") from error
