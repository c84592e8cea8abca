"""Memory that was freed goes back to the system: glibc keeps what large work has used, for ever perhaps."""

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATM = Path("/proc/self/statm")
_RESIDENT = 1
_LOOK_SECONDS = 5.0
_WORTH_BYTES = 8 * 1024 * 1024


def give_back() -> None:
    """Have the C library return what it keeps. Takes some milliseconds; for any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@contextmanager
def giving_back() -> Iterator[None]:
    """Until the exit, a thread gives memory back whenever the process has grown by some megabytes."""
    stopping = threading.Event()

    def look_now_and_then() -> None:
        least = _resident()
        while not stopping.wait(_LOOK_SECONDS):
            with suppress(OSError):  # no descriptor is free to look with
                now = _resident()
                if now > least + _WORTH_BYTES:
                    give_back()
                    now = least = _resident()
                least = min(least, now)

    looking = threading.Thread(target=look_now_and_then, name="freed-memory", daemon=True)
    looking.start()
    try:
        yield
    finally:
        stopping.set()
        looking.join()


def _resident() -> int:
    """Bytes of memory that the process has, where Linux tells."""
    return int(_STATM.read_text().split()[_RESIDENT]) * mmap.PAGESIZE if _STATM.exists() else 0
