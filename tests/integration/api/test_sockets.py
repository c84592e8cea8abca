"""What a connection may do to the API, byte by byte: slow heads, slow bodies, bodies that nobody reads, and many."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from api.app import create_app
from api.server import Server
from osora_common import bodies, http_protocol
from registry.context import Registry
from registry.settings import Settings
from tests.integration.api.conftest import error_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

_PATIENCE_SECONDS = 60


@contextmanager
def connected(url: str, sent: bytes = b"") -> Iterator[socket.socket]:
    """A connection over which these bytes have gone."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), address.port or 0), _PATIENCE_SECONDS) as connection:
        connection.sendall(sent)
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


@contextmanager
def in_use(url: str) -> Iterator[socket.socket]:
    """A connection that has had an answer: the head of its next request begins with the first byte of it."""
    with connected(url, head("GET", "/health")) as connection:
        found = b""
        while not found.endswith(b'{"status":"ok"}'):
            piece = connection.recv(65536)
            assert piece, found
            found += piece
        yield connection


def answer_to_much(url: str, sent: bytes) -> bytes:
    """What comes until the other side has closed, which may be while these bytes are still on their way to it."""
    found = b""
    with connected(url) as connection:
        with suppress(ConnectionError):
            connection.sendall(sent)
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                found += piece
    return found


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *headers, "", ""]).encode()


PATIENCE = {
    "HEAD_SECONDS": http_protocol,
    "IDLE_SECONDS": http_protocol,
    "STALL_SECONDS": http_protocol,
    "DRAIN_SECONDS": http_protocol,
    "GRACE_SECONDS": bodies,
}


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Leaves the server a second's patience with one thing, and enough with all others for a test that is held up."""
    for name, module in PATIENCE.items():
        monkeypatch.setattr(module, name, 2 * _PATIENCE_SECONDS)
    return lambda name: monkeypatch.setattr(PATIENCE[name], name, 1.0)


class TestSlowClients:
    def test_a_head_that_does_not_end(self, url: str, hurry: Callable[[str], None]) -> None:
        with in_use(url) as slow:
            hurry("HEAD_SECONDS")
            slow.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ")
            answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"

    def test_a_head_that_trickles(self, url: str, hurry: Callable[[str], None]) -> None:
        """What counts is when it began, not when the last byte came."""
        with in_use(url) as slow:
            hurry("HEAD_SECONDS")
            slow.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n")
            slow.settimeout(0.05)

            def has_ended() -> bool:
                try:
                    slow.sendall(b"x: y\r\n")
                    return slow.recv(1024) == b""
                except TimeoutError:
                    return False
                except ConnectionError:
                    return True

            wait_until(has_ended)

    def test_a_client_that_says_nothing(self, url: str, hurry: Callable[[str], None]) -> None:
        hurry("HEAD_SECONDS")
        with connected(url) as silent:
            assert read_all(silent) == b""

    def test_a_connection_without_a_next_request(self, url: str, hurry: Callable[[str], None]) -> None:
        hurry("IDLE_SECONDS")
        with connected(url, head("GET", "/health")) as idle:
            assert read_all(idle).endswith(b'{"status":"ok"}')

    def test_a_body_that_stalls(self, url: str, api_key: str, hurry: Callable[[str], None]) -> None:
        hurry("GRACE_SECONDS")
        sent = head("POST", "/jobs", f"x-api-key: {api_key}", "content-type: application/json", "content-length: 100")
        with connected(url, sent + b'{"model": "') as slow:
            answer = read_all(slow)
        much = head(
            "POST", "/jobs", f"x-api-key: {api_key}", "content-type: application/json", "content-length: 2000000"
        )
        late = answer_to_much(url, much + b" " * 1_000_000)
        assert late.startswith(b"HTTP/1.1 408 "), "what came before buys no time to stall"
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == "request_timeout"
        assert "after 11 bytes" in error["message"]

    def test_an_upload_that_stalls(self, url: str, api_key: str, hurry: Callable[[str], None]) -> None:
        hurry("GRACE_SECONDS")
        sent = head("POST", "/files", f"x-api-key: {api_key}", "content-type: multipart/form-data; boundary=x",
                    "content-length: 1000")  # fmt: skip
        with connected(
            url, sent + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
        ) as slow:
            assert read_all(slow).startswith(b"HTTP/1.1 408 ")

    def test_a_body_that_nobody_reads(self, url: str, hurry: Callable[[str], None]) -> None:
        """Its sender is answered at once, and may not go on for ever."""
        hurry("DRAIN_SECONDS")
        with connected(url, head("POST", "/jobs", "content-length: 100000")) as slow:
            assert b"HTTP/1.1 401 " in read_all(slow)

    def test_a_client_that_does_not_read(self, url: str, server: Server, hurry: Callable[[str], None]) -> None:
        """What it asked for is not kept for it for ever."""
        hurry("STALL_SECONDS")
        with connected(url) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(head("GET", "/docs/swagger-ui-bundle.js") * 40)
            assert deaf.recv(1, socket.MSG_PEEK), "it is being answered"
            wait_until(lambda: not server.server_state.connections)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_byte_of_a_body_is_read_before_the_key(url: str) -> None:
    """The answer comes though none was sent."""
    for length in ("4000000", "9" * 18):
        with connected(url, head("POST", "/jobs", f"content-length: {length}", "expect: 100-continue")) as early:
            assert early.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_heads_are_bounded(url: str, api_key: str) -> None:
    long_head = head("GET", "/jobs", f"x-api-key: {api_key}", *(f"x-{n}: y" for n in range(6000)))
    assert answer_to_much(url, long_head).startswith(b"HTTP/1.1 431 ")
    with connected(url, head("GET", "/jobs?" + "a&" * 2000, f"x-api-key: {api_key}", "connection: close")) as long:
        assert b"the query has more than 1000 parameters" in read_all(long)


def test_what_is_no_http_is_refused_in_our_shape(url: str) -> None:
    with connected(url, b"\x16\x03\x01 nonsense\r\n\r\n") as strange:
        answer = read_all(strange)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_a_bad_piece_amid_a_body_ends_its_connection_alone(
    url: str, api_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent = head(
        "POST", "/jobs", f"x-api-key: {api_key}", "content-type: application/json", "transfer-encoding: chunked"
    )
    with connected(url, sent + b"not a length\r\n") as strange, suppress(ConnectionResetError):
        read_all(strange)
    assert httpx.get(f"{url}/health").status_code == 200
    assert "Traceback" not in caplog.text


class TestMemory:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"body_memory_bytes": 16 * 1024 * 1024})

    def test_a_tenant_takes_no_more_than_is_left_to_others(
        self, url: str, client_with: Callable[..., httpx.Client], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bodies of 4 MB that do not end: two of one tenant's are read, and another's are read beside them."""
        monkeypatch.setattr(bodies, "_PATIENCE_SECONDS", 0.5)
        monkeypatch.setattr(bodies, "GRACE_SECONDS", 2 * _PATIENCE_SECONDS)  # nor are they given up meanwhile
        greedy, other = client_with("read", "train", tenant="greedy"), client_with("read", "train", tenant="other")
        key = greedy.headers["authorization"]
        sent = head(
            "POST", "/jobs", f"authorization: {key}", "content-type: application/json", "content-length: 4000000"
        )
        with ExitStack() as stack:
            three = [stack.enter_context(connected(url, sent + b"[")) for _ in range(3)]
            (refused, *_), _, _ = select.select(three, [], [], _PATIENCE_SECONDS)
            assert refused.recv(65536).startswith(b"HTTP/1.1 429 ")
            body = {"model": "osora-tiny", "training_file": "file-1", "suffix": "x" * 2_000_000}
            assert error_of(other.post("/jobs", json=body), 400)["param"] == "suffix"
            error = error_of(greedy.post("/jobs", content=b" " * 4_000_000), 429)
            assert error["code"] == "too_many_bodies"
        # Those connections are closed, and their room is there again.
        wait_until(lambda: greedy.post("/jobs", content=b" " * 4_000_000).status_code == 400)


class TestManyConnections:
    @pytest.fixture
    def server(self, settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Server:
        monkeypatch.setattr("api.server.room_for_connections", lambda: 20)
        return Server(create_app(settings), settings)

    def test_the_one_that_has_waited_longest_makes_room(self, url: str) -> None:
        with ExitStack() as stack:
            slow = [stack.enter_context(connected(url, b"GET /health HTT")) for _ in range(40)]
            assert httpx.get(f"{url}/health", timeout=_PATIENCE_SECONDS).status_code == 200
            with suppress(ConnectionResetError):
                assert slow[0].recv(1) == b""


class TestFullThreads:
    @pytest.fixture
    def server(self, settings: Settings, registry: Registry) -> Server:
        app = create_app(settings)

        @app.get("/files/waits/for/ever")
        def wait() -> None:
            self.waiting.release()
            self.released.wait()

        return Server(app, settings)

    waiting, released = threading.Semaphore(0), threading.Event()

    def test_health_and_keys_need_none_of_them(self, url: str, client: httpx.Client, api_key: str) -> None:
        sent = head("GET", "/files/waits/for/ever", f"x-api-key: {api_key}")
        with ExitStack() as stack:
            stack.callback(self.released.set)
            for _ in range(50):
                stack.enter_context(connected(url, sent))
            for _ in range(40):
                assert self.waiting.acquire(timeout=_PATIENCE_SECONDS)
            assert client.get("/health").status_code == 200
            wrong = client.get("/jobs", headers={"authorization": "Bearer osk-guessed"})
            error_of(wrong, 401)
            error_of(client.get("/nothing"), 404)
