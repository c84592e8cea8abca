"""A stored basis brought to this machine: taken up where it was cut, checked against its hash, whole or not at all."""

import hashlib
import os
import re
from pathlib import Path

from filelock import FileLock

from osora.discovery import absolute
from osora.errors import OsoraConnectionError, OsoraError
from osora.transport import Transport, segment
from osora_common.safetensors_files import read_header

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_PIECE_BYTES = 1024 * 1024


def library_folder() -> Path:
    """Where `osora_core` looks for bases by itself: in $OSORA_CACHE, or ~/.cache/osora."""
    return absolute(Path(os.environ.get("OSORA_CACHE") or "~/.cache/osora")) / "basis"


def pull(transport: Transport, base: str, folder: Path) -> Path:
    """Have the basis of a base (its name, or the basis's hash) in `folder` as `<hash>.safetensors`; returns its path.

    A file that is there and whole is not fetched again. A download that breaks off goes on as long as it gets further;
    after that its part stays, and the next call goes on with it. Processes that pull the same basis take turns.

    Raises OsoraError if what came is not the basis of this hash; nothing of it is kept.
    """
    fingerprint = _fingerprint_at(transport, base)
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / f"{fingerprint}.safetensors", folder / f".{fingerprint}.part"
    with FileLock(part.with_suffix(".lock")):
        if target.exists() and fingerprint_of(target) == fingerprint:
            return target
        _download(transport, fingerprint, part)
        found = fingerprint_of(part)
        if found != fingerprint:
            part.unlink()
            raise OsoraError(f"What the service sent is not the basis {fingerprint}: it is {found or 'no basis file'}")
        part.replace(target)
        return target


def fingerprint_of(path: Path) -> str | None:
    """The hash that names a basis: of the names, dtypes, shapes and bytes of a safetensors file's tensors.

    The same as `osora_core.weights.fingerprint_tensors`, without torch. None for a file that is none.
    """
    try:
        first, tensors = read_header(path)
        lines = []
        with path.open("rb") as file:
            for name, entry in tensors.items():
                begin, end = entry["data_offsets"]
                file.seek(first + begin)
                content = hashlib.sha256()
                for size in range(end - begin, 0, -_PIECE_BYTES):
                    content.update(file.read(min(size, _PIECE_BYTES)))
                lines.append(f"{name} {_DTYPES[entry['dtype']]} {tuple(entry['shape'])} {content.hexdigest()}\n")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _fingerprint_at(transport: Transport, base: str) -> str:
    """The hash of a base's basis at the service."""
    if re.fullmatch("[0-9a-f]{64}", base):
        return base
    with transport.stream("GET", f"/bases/{segment(base)}/basis") as response:
        fingerprint: str = response.headers.get("etag", "").strip('"')
    if not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise OsoraError("What answers is not Osora: a basis was asked for, and it sent something without its hash")
    return fingerprint


def _download(transport: Transport, fingerprint: str, part: Path) -> None:
    """Bring the rest of a basis to `part`. Raises OsoraConnectionError once an attempt brings nothing."""
    while True:
        have = part.stat().st_size if part.exists() else 0
        headers = {"accept-encoding": "identity"}
        if have:
            headers |= {"range": f"bytes={have}-", "if-range": f'"{fingerprint}"'}
        try:
            with (
                transport.stream("GET", f"/bases/{fingerprint}/basis", headers=headers) as response,
                part.open("ab") as out,
            ):
                if response.status_code != 206:
                    out.truncate(0)
                for piece in response.iter_bytes():
                    out.write(piece)
            return
        except OsoraConnectionError as error:
            if not error.interrupted or part.stat().st_size <= have:
                raise
