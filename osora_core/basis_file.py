"""Files of bases: what one says of itself, and one that is there whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

FORMAT = "osora-basis-1"
PREFIXES = "prefixes"
"""Where a file says which stored bases it begins with: a JSON object of their hashes by rank."""


def metadata(path: Path) -> dict[str, str]:
    """What a basis file says of itself, without reading its tensors; nothing for a file that is none."""
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):
        return {}
    return found if found.get("format") == FORMAT else {}


def fingerprints(metadata: Mapping[str, str]) -> dict[int, str]:
    """By rank, the hashes of the bases that a file begins with, and last its own. Raises ValueError or KeyError."""
    prefixes = json.loads(metadata.get(PREFIXES, "{}"))
    if not isinstance(prefixes, dict):
        raise ValueError(f"{PREFIXES} is no JSON object")
    found = {int(rank): str(fingerprint) for rank, fingerprint in prefixes.items()}
    rank = int(metadata["rank"])
    return {**{below: found[below] for below in sorted(found) if 0 < below < rank}, rank: metadata["fingerprint"]}


def begins_with(path: Path, fingerprint: str) -> bool:
    """Whether a file says that it is, or has grown from, the basis of this hash. Loading it tells if so."""
    try:
        return fingerprint in fingerprints(metadata(path)).values()
    except (ValueError, KeyError):
        return False


def began_at(path: Path, rank: int) -> bool:
    """Whether a file says that it is, or has grown from, a basis of this rank."""
    try:
        return rank in fingerprints(metadata(path))
    except (ValueError, KeyError):
        return False


def dtype(path: Path) -> torch.dtype:
    """What the U and V^T of a basis file are stored in."""
    with safe_open(path, framework="pt") as file:
        name = next(name for name in file.keys() if name.endswith(".U"))  # noqa: SIM118
        found: torch.dtype = file.get_tensor(name).dtype
    return found


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A file beside `path`, to be written; then it takes its place, on the disk for good. An error leaves neither, and
    a draft that is left empty leaves `path` as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    os.close(descriptor)
    written = Path(temporary)
    try:
        yield written
        with written.open("rb") as handle:
            os.fsync(handle.fileno())
        if written.stat().st_size:
            os.replace(written, path)
    finally:
        written.unlink(missing_ok=True)
