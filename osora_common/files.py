"""Files that are there whole or not at all."""

import glob
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock


def absolute(path: Path) -> Path:
    """The path from the root on, `~` resolved. Raises ValueError for the home of somebody who has none."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} begins in a home directory that is not there; write it from / on") from error


def write_whole(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file piece by piece under another name, then give it its own; its folder must exist.

    An error leaves neither the file nor a part of it. A process that was killed leaves a part under the other name,
    and whoever writes the same file next removes that. Several processes may write the same file: they take turns.
    """
    with FileLock(f"{path}.write-lock"):
        for abandoned in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
            abandoned.unlink(missing_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(pieces)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
