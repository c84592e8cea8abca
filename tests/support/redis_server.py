"""A Redis server for the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

_SOCKET_SCHEME = "redis+socket://"  # Celery's word for redis-py's unix://
_START_SECONDS = 10


@contextmanager
def server() -> Iterator[str]:
    """The Celery broker URL of a server, which is gone afterwards if we started it."""
    if configured := os.environ.get("OSORA_TEST_REDIS_URL"):
        yield configured
        return
    binary = _find_binary()
    if binary is None:
        pytest.skip("no Redis: set OSORA_TEST_REDIS_URL, or put redis-server or valkey-server on PATH")
    # A short path: the name of a unix socket may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="osora-redis-") as directory:
        socket = Path(directory, "redis.sock")
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", directory]
        process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            url = f"{_SOCKET_SCHEME}{socket}"
            _wait_until_ready(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


def flush(url: str) -> None:
    """Forgets everything in the database that `url` names."""
    with _client(url) as client:
        client.flushdb()


def _find_binary() -> str | None:
    beside_python = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    names = ("redis-server", "valkey-server")
    return next((found for name in names if (found := shutil.which(name, path=beside_python))), None)


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
