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
        seen += fresh.rfind(b"\n") + 1  # a line still being written is read again
        return sought.search(fresh) is not None

    return probe
