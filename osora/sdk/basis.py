"""A stored basis brought to this machine: taken up where it was cut, checked against its hash, whole or not at all."""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

import httpx
from filelock import FileLock

from osora.discovery import absolute
from osora.errors import OsoraConnectionError, OsoraError
from osora.sdk.call import Call, Sink, Steps, Work, nothing, path
from osora_common.safetensors_files import read_header

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_PIECE_BYTES = 1024 * 1024


def library_folder() -> Path:
    """Where `osora_core` looks for bases by itself: in $OSORA_CACHE, or ~/.cache/osora."""
    return absolute(Path(os.environ.get("OSORA_CACHE") or "~/.cache/osora")) / "basis"


def pull(base: str, folder: Path) -> Steps[Path]:
    """Have the basis of a base (its name, or the basis's hash) in `folder` as `<hash>.safetensors`; returns its path.

    A file that is there and whole is not fetched again. A download that breaks off goes on as long as it gets further;
    after that its part stays, and the next call goes on with it. Processes that pull the same basis take turns.

    Raises OsoraError if what came is not the basis of this hash; nothing of it is kept.
    """
    fingerprint: str = base if _is_hash(base) else (yield Call("GET", _where(base), parse=_named_in, only_head=True))
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / f"{fingerprint}.safetensors", folder / f".{fingerprint}.part"
    # Each step may be another thread's.
    lock = FileLock(part.with_suffix(".lock"), thread_local=False)
    yield Work(lock.acquire)
    try:
        if target.exists() and (yield Work(lambda: fingerprint_of(target))) == fingerprint:
            return target
        yield from _download(fingerprint, part)
        found = yield Work(lambda: fingerprint_of(part))
        if found != fingerprint:
            part.unlink()
            raise OsoraError(f"What the service sent is not the basis {fingerprint}: it is {found or 'no basis file'}")
        part.replace(target)
        return target
    finally:
        lock.release()


def fingerprint_of(file: Path) -> str | None:
    """The hash that names a basis: of the names, dtypes, shapes and bytes of a safetensors file's tensors.

    The same as `osora_core.weights.fingerprint_tensors`, without torch. None for a file that is none.
    """
    try:
        first, tensors = read_header(file)
        lines = []
        with file.open("rb") as stream:
            for name, entry in tensors.items():
                begin, end = entry["data_offsets"]
                stream.seek(first + begin)
                content = hashlib.sha256()
                for size in range(end - begin, 0, -_PIECE_BYTES):
                    content.update(stream.read(min(size, _PIECE_BYTES)))
                lines.append(f"{name} {_DTYPES[entry['dtype']]} {tuple(entry['shape'])} {content.hexdigest()}\n")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _is_hash(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _where(base: str) -> str:
    return path("/bases/{}/basis", base)


def _named_in(response: httpx.Response) -> str:
    """The hash of the basis that an answer holds."""
    fingerprint: str = response.headers.get("etag", "").strip('"')
    if not _is_hash(fingerprint):
        raise OsoraError("What answers is not Osora: a basis was asked for, and it sent something without its hash")
    return fingerprint


def _download(fingerprint: str, part: Path) -> Steps[None]:
    """Bring the rest of a basis to `part`. Raises OsoraConnectionError once an attempt brings nothing."""
    while True:
        have = part.stat().st_size if part.exists() else 0
        headers = {"accept-encoding": "identity"}
        if have:
            headers |= {"range": f"bytes={have}-", "if-range": f'"{fingerprint}"'}
        with part.open("ab") as out:

            def begin(response: httpx.Response, out: BinaryIO = out) -> Sink:
                if response.status_code != 206:
                    out.truncate(0)
                return out.write

            try:
                yield Call("GET", _where(fingerprint), parse=nothing, headers=headers, into=begin, retries=False)
                return
            except OsoraConnectionError as error:
                if not error.interrupted or out.tell() <= have:
                    raise
