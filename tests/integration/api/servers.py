"""Real servers in threads of this process, on ports of their own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

_PATIENCE_SECONDS = 60


@contextmanager
def running(server: uvicorn.Server) -> Iterator[str]:
    """The URL of a server that is stopped afterwards, as SIGTERM would."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.005)  # uvicorn has no signal for "started"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_SECONDS)
        assert not thread.is_alive(), "the server did not stop"
