"""A line between a browser and a server that can be lost, as a train in a tunnel loses it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_PATIENCE_SECONDS = 120.0


class Line:
    """What is sent to `url` arrives at the server, as long as the line holds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._there = (parts.hostname or "", parts.port or 80)
        self._loop = loop
        self._ends: set[asyncio.StreamWriter] = set()
        self._is_silent = self._is_cut = False
        self._swallowed = threading.Event()
        self.url = ""

    def silence(self) -> None:
        """Nothing arrives any more, and neither end hears that it does not. Returns once the server has said something
        into it."""
        self._swallowed.clear()
        self._is_silent = True
        assert self._swallowed.wait(_PATIENCE_SECONDS), "the server has said nothing"

    def cut(self) -> None:
        """Both ends hear that they are alone, and whoever tries again is turned away."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._hang_up)

    def mend(self) -> None:
        """Whoever tries again gets through."""
        self._is_cut = self._is_silent = False

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A browser has come."""
        if self._is_cut:
            writer.transport.abort()
            return
        with suppress(ConnectionError):
            from_server, to_server = await asyncio.open_connection(*self._there)
            await asyncio.gather(self._pass_on(reader, to_server), self._pass_on(from_server, writer, is_told=True))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_told: bool = False
    ) -> None:
        self._ends.add(writer)
        try:
            with suppress(ConnectionError):
                while piece := await reader.read(65536):
                    if not self._is_silent:
                        writer.write(piece)
                        await writer.drain()
                    elif is_told:
                        self._swallowed.set()
        finally:
            self._ends.discard(writer)
            writer.close()

    def _hang_up(self) -> None:
        for writer in self._ends:
            writer.transport.abort()


@contextmanager
def line_to(server_url: str) -> Iterator[Line]:
    """A line of its own, in a thread of its own: playwright has an event loop in the one that tests run in."""
    loop = asyncio.new_event_loop()
    line = Line(loop, server_url)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(line.connected, "127.0.0.1", 0), loop).result()
    line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        asyncio.run_coroutine_threadsafe(_ended(server, line), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ended(server: asyncio.Server, line: Line) -> None:
    server.close()
    line.cut()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
