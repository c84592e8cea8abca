"""Temporary files of a service's processes: nobody else may read them, and those of a killed process do not stay.

Who needs some has a folder of its own in `{data_dir}/tmp`, and holds a lock beside it: the system takes the lock away
however the process ends. Whoever comes next removes the folders whose locks are free.
"""

import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path

_LOCK = ".lock"


class Scratch:
    """A folder for temporary files, made when it is first asked for."""

    def __init__(self, data_dir: Path) -> None:
        self._parent = data_dir / "tmp"
        self._guard = threading.Lock()
        self._made: tuple[Path, int] | None = None

    @property
    def folder(self) -> Path:
        """It is there until `close`. What dead processes have left is removed before it is made."""
        with self._guard:
            if self._made is None:
                self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._parent.chmod(0o700)
                sweep(self._parent)
                self._made = _locked(self._parent)
                self._made[0].mkdir(mode=0o700)
            return self._made[0]

    def close(self) -> None:
        """Removes the folder with all that is in it."""
        with self._guard:
            if self._made is not None:
                folder, descriptor = self._made
                self._made = None
                _remove(folder)
                os.close(descriptor)


def sweep(parent: Path) -> None:
    """Removes the folders of processes that are no more."""
    for lock in parent.glob(f"*{_LOCK}"):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except FileNotFoundError:
            continue  # another process sweeps as well
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.with_suffix(""))
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Its lock goes last: what is left over of the rest is found by it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(folder.name + _LOCK).unlink(missing_ok=True)


def _locked(parent: Path) -> tuple[Path, int]:
    """A name for a folder, and its lock, which is held."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=parent, prefix=f"{os.getpid()}-", suffix=_LOCK)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A process that swept between the two lines took it for a dead one's.
        if os.fstat(descriptor).st_nlink:
            return Path(name).with_suffix(""), descriptor
        os.close(descriptor)
