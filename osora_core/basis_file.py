"""Files of bases: what one says of itself, and one that is there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

FORMAT = "osora-basis-1"


def metadata(path: Path) -> dict[str, str]:
    """What a basis file says of itself, without reading its tensors; nothing for a file that is none."""
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):
        return {}
    return found if found.get("format") == FORMAT else {}


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
