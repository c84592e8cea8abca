"""How our HTTP programs run under uvicorn: `python -m api` and `python -m inference`."""

import resource
import signal
import socket
import sys
from types import FrameType

import uvicorn

_MOST_FILES = 65_536
_OWN_FILES = 512
"""Left for databases, stores and uploads."""


class ReadyServer(uvicorn.Server):
    """Says "ready" on the standard error stream once connections are accepted."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print("ready", file=sys.stderr, flush=True)


def exit_on_signals() -> None:
    """From now on SIGTERM and SIGINT end the process with 0.

    A running server stops gracefully first: uvicorn raises the signal again for whoever was there before.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def room_for_connections() -> int:
    """How many connections this process may have open, after asking the system for as many files as it gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    most = _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    return max(most - _OWN_FILES, most // 2)
