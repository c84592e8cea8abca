"""An adapter from outside, as a ZIP of a PEFT directory: taken apart within bounds, and never trusted.

What leaves here is a ZIP of two plain files, whose names, sizes and headers have been checked. Whether the numbers in
it fit a base is for an inference server to say: nothing here reads a tensor.
"""

import hashlib
import math
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from osora_common.safetensors_files import header_length, read_header
from osora_data import strict_json
from registry.errors import InvalidRequest, TooLarge

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG_BYTES = 1024 * 1024
HEADER_BYTES = 8 * 1024 * 1024
MOST_ENTRIES = 256
MOST_TENSORS = 50_000

_DIRECTORY_BYTES = 256 * 1024
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
_PIECE_BYTES = 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)
_NEXT = "zip the folder that PEFT's save_pretrained wrote"
# The end of a ZIP's central directory is 22 bytes and a comment; see APPNOTE.TXT, 4.3.16.
_END, _END_BYTES, _LONGEST_COMMENT = b"PK\5\6", 22, 2**16
_LOCATOR_64, _LOCATOR_BYTES = b"PK\6\7", 20


@dataclass(frozen=True)
class Packed:
    """An archive that can be stored: a ZIP of the two files, uncompressed."""

    path: Path
    sha256: str
    bytes: int


@contextmanager
def repacked(stream: BinaryIO, limit: int, scratch: Path) -> Iterator[Packed]:
    """The archive with nothing but the two files, somewhere in `scratch`; gone at exit.

    `limit`: bytes of the weights, decompressed.

    Raises `InvalidRequest`, naming what is wrong and where, and `TooLarge`.
    """
    with tempfile.TemporaryDirectory(prefix="adapter-", dir=scratch) as folder:
        weights = Path(folder, WEIGHTS)
        config = _take_apart(stream, weights, limit)
        check_config(config)
        check_weights(weights)
        path = Path(folder, "adapter.zip")
        _pack(path, config, weights)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield Packed(path, digest, path.stat().st_size)


def _take_apart(stream: BinaryIO, weights: Path, limit: int) -> bytes:
    """The config; the weights are written to a file."""
    _check_directory(stream)
    try:
        with zipfile.ZipFile(stream) as archive:
            found = _find(archive.infolist())
            with archive.open(found[CONFIG]) as source:
                config = source.read(CONFIG_BYTES + 1)
            if len(config) > CONFIG_BYTES:
                raise _refused(f"{CONFIG} is over {CONFIG_BYTES} bytes")
            with archive.open(found[WEIGHTS]) as source, weights.open("wb") as target:
                _copy(source, target, limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _refused(f"the file is no ZIP archive that can be read: {str(error)[:200]}") from error
    return config


def _copy(source: IO[bytes], target: IO[bytes], limit: int) -> None:
    left = limit
    while piece := source.read(_PIECE_BYTES):
        left -= len(piece)
        if left < 0:
            raise TooLarge(f"{WEIGHTS} is over {limit} bytes", param="file", next_action="raise OSORA_MAX_UPLOAD_BYTES")
        target.write(piece)


def _check_directory(stream: BinaryIO) -> None:
    """Refuses a list of entries that would fill memory when it is read: it may be as large as the archive."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT - _LOCATOR_BYTES))
    tail = stream.read()
    at = len(tail) - _END_BYTES
    if at < 0 or tail[at : at + 4] != _END or tail[-2:] != b"\0\0":  # as Python's reader looks for it
        at = tail.rfind(_END)
    if at < 0:
        raise _refused("the file is no ZIP archive")
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    if tail[max(0, at - _LOCATOR_BYTES) : at].startswith(_LOCATOR_64) or directory > _DIRECTORY_BYTES:
        raise _refused(f"the archive lists more than the few files of an adapter (over {_DIRECTORY_BYTES} bytes)")


def _find(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The two files, at the top or in the one folder where the config is."""
    if len(entries) > MOST_ENTRIES:
        raise _refused(f"the archive has {len(entries)} entries; an adapter has a few")
    names: set[str] = set()
    for entry in entries:
        _check_entry(entry)
        if entry.filename in names:
            raise _refused(f"the archive has {_shown(entry.filename)} twice")
        names.add(entry.filename)
    configs = [entry for entry in entries if PurePosixPath(entry.filename).name == CONFIG and not entry.is_dir()]
    if len(configs) != 1:
        raise _refused(f"the archive has {len(configs)} files called {CONFIG}; an adapter has one")
    folder = PurePosixPath(configs[0].filename).parent
    by_name = {PurePosixPath(entry.filename): entry for entry in entries}
    weights = by_name.get(folder / WEIGHTS)
    if weights is None:
        pickled = [name for name in sorted(names) if name.lower().endswith(_PICKLES)]
        if pickled:
            raise _refused(
                f"{_shown(pickled[0])} is a pickle, which can run code when it is read",
                "save the adapter as safetensors: save_pretrained(folder, safe_serialization=True)",
            )
        raise _refused(f"the archive has no {WEIGHTS} beside {CONFIG}")
    return {CONFIG: configs[0], WEIGHTS: weights}


def _check_entry(entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.orig_filename or "\0" in entry.orig_filename:
        raise _refused(f"the archive has an entry {_shown(entry.orig_filename)}, which is no plain path")
    if entry.flag_bits & 1:
        raise _refused(f"{_shown(entry.filename)} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused(f"{_shown(entry.filename)} is compressed in a way that is not supported", "use plain ZIP")


def check_config(content: bytes) -> dict[str, Any]:
    """The parsed adapter_config.json. Raises `InvalidRequest` for what is no object, or ambiguous."""
    try:
        config = strict_json.loads(content.decode())
    except strict_json.DuplicateKeyError as error:
        raise _refused(f"{CONFIG} has the key {_shown(error.key)} twice") from error
    except (ValueError, RecursionError) as error:
        raise _refused(f"{CONFIG} cannot be read: {str(error)[:200] or type(error).__name__}") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise _refused(f"{CONFIG} is no object with a peft_type")
    return config


def check_weights(path: Path) -> None:
    """Raises `InvalidRequest` unless a file is safetensors with tensors of floating point that fill it."""
    size = path.stat().st_size
    if header_length(path) > HEADER_BYTES:
        raise _refused(f"the header of {WEIGHTS} is over {HEADER_BYTES} bytes")
    try:
        begin, entries = read_header(path)
    except (ValueError, RecursionError) as error:
        raise _refused(f"{WEIGHTS} is not in the format of safetensors") from error
    if not 0 < len(entries) <= MOST_TENSORS:
        raise _refused(f"{WEIGHTS} has {len(entries)} tensors; up to {MOST_TENSORS} can be read")
    spans = sorted(_span(name, entry) for name, entry in entries.items())
    end = 0
    for first, last, name in spans:
        if first != end:
            raise _refused(f"the tensor {_shown(name)} does not begin where the one before it ends")
        end = last
    if begin + end != size:
        raise _refused(f"{WEIGHTS} has {size} bytes; its header speaks of {begin + end}")


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor begins and ends, and its name."""
    try:
        dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, first, last]
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(f"the header of {WEIGHTS} does not say what {_shown(name)} is") from error
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise _refused(f"the tensor {_shown(name)} is of type {_shown(dtype)}; {', '.join(_SIZES)} can be read")
    whole = all(type(number) is int and 0 <= number < 2**48 for number in numbers)
    if not whole or not 1 <= len(shape) <= 2 or last - first != math.prod(shape) * _SIZES[dtype] or last == first:
        raise _refused(f"the tensor {_shown(name)} of shape {_shown(shape)} does not fit the bytes that it is given")
    return first, last, name


def _pack(path: Path, config: bytes, weights: Path) -> None:
    """The same bytes for the same files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in (CONFIG, WEIGHTS):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            if name == CONFIG:
                archive.writestr(info, config)
                continue
            info.file_size = weights.stat().st_size  # by which it knows whether it needs ZIP's larger form
            with weights.open("rb") as source, archive.open(info, "w") as target:
                while piece := source.read(_PIECE_BYTES):
                    target.write(piece)


def _refused(message: str, next_action: str = _NEXT) -> InvalidRequest:
    return InvalidRequest(message, param="file", code="invalid_adapter", next_action=next_action)


def _shown(value: object) -> str:
    text = re.sub(r"[^ -~]", "?", repr(value))
    return text if len(text) <= 120 else f"{text[:120]}…"
