"""How the supervisor learns that a program serves."""

import http.client
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit


def http_ok(url: str) -> Callable[[], bool]:
    """Whether GET answers 200."""
    parts = urlsplit(url)

    def probe() -> bool:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=4.0)
        try:
            connection.request("GET", parts.path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def logged(path: Path, word: str) -> Callable[[], bool]:
    """Whether this word has been logged (for a program without a port of its own)."""
    sought = re.compile(rb"\b" + re.escape(word.encode()) + rb"\b")
    seen = 0

    def probe() -> bool:
        nonlocal seen
        try:
            with path.open("rb") as log:
                log.seek(seen)
                fresh = log.read()
        except OSError:
            return False
        found = sought.search(fresh)
        # A line still being written is read again, but no word is found twice: the next is of another process.
        seen += max(fresh.rfind(b"\n") + 1, found.end() if found else 0)
        return found is not None

    return probe
