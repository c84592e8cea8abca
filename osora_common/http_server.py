"""How our HTTP programs run under uvicorn: `python -m api` and `python -m inference`."""

import signal
import socket
import sys
from types import FrameType

import uvicorn


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
