"""What an installation writes is its owner's alone: training data, adapters, keys, logs."""

import os
from pathlib import Path

# What our programs make in a data directory. One made before, or by hand, may be open to others.
_OURS = (
    "cache", "init.lock", "internal.token", "local.key", "logs", "objects", "osora.db", "run", "secret.key", "tmp",
    "usage",
)  # fmt: skip
_MARKS = ("init.lock", "run", "secret.key", "internal.token", "osora.db")
_OTHERS = 0o077


class DataDirError(Exception):
    """The data directory cannot be used."""

    next_action = "set OSORA_DATA_DIR to a directory of yours"


def keep_private(data_dir: Path) -> bool:
    """Make the directory if need be, and have this process, and all that it starts, write for its user alone.

    Whether others are kept out of the directory as well: one that holds more than an installation is left as it is.
    Raises DataDirError if it cannot be made.
    """
    os.umask(_OTHERS)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirError(f"{error.filename or data_dir} cannot be used: {error.strerror}") from error
    for name in _OURS:
        _close(data_dir / name)
    if data_dir.stat().st_mode & _OTHERS and not _holds_more(data_dir):
        _close(data_dir)
    return not data_dir.stat().st_mode & _OTHERS


def _holds_more(data_dir: Path) -> bool:
    return any(data_dir.iterdir()) and not any((data_dir / name).exists() for name in _MARKS)


def _close(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
        if mode & _OTHERS and not path.is_symlink():
            path.chmod(mode & 0o700)
    except OSError:  # not there, or another user's
        return
