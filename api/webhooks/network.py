"""Connections that give so many bytes and no more.

HTTP lets any number of interim answers (1xx) come before the one that counts, and each is parsed: what a receiver sends
needs a bound as a whole, or it keeps this process busy for as long as it is listened to.
"""

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

_PIECE_BYTES = 4096
"""Of one read: all of it is parsed before anything else has its turn."""


class TooManyBytesError(Exception):
    """More came than is read."""


class BoundedTransport(httpx.AsyncHTTPTransport):
    """Reads at most `most_bytes` from a connection, which is for one request: the next to its address may be for
    another name. Reading on raises `TooManyBytesError`."""

    def __init__(self, verify: ssl.SSLContext, most_bytes: int) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=verify,
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_Backend(most_bytes),
        )


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._most_bytes)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, most_bytes: int) -> None:
        self._stream = stream
        self._left = most_bytes

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left <= 0:
            raise TooManyBytesError
        piece = await self._stream.read(min(max_bytes, _PIECE_BYTES), timeout)
        self._left -= len(piece)
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
