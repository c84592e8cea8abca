"""A small real HTTP server that plays the service, and the data directory that is found by itself."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.servers import LocalServer, QuietHandler, serving

STUBS = Path(__file__).with_name("stubs")


@dataclass
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """`events` are written one by one; `cut` ends the connection without an end of the body.

    `promised` bytes are announced, whatever the body has.
    """

    status: int = 200
    body: Any = None
    events: Iterable[str] | None = None
    cut: bool = False
    promised: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeService:
    """Routes are (method, path) -> a function of the request, or a list of answers to give in turn."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    routes: dict[tuple[str, str], Callable[[Request], Answer]] = field(default_factory=dict)

    def on(self, method: str, path: str, *answers: Answer) -> None:
        waiting = list(answers)
        self.routes[method, path] = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def sse(event: str, data: object, event_id: int | None = None) -> str:
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n"


def _handler(service: FakeService) -> type[QuietHandler]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, path, query, headers, body)
            service.requests.append(request)
            missing = {"error": {"message": f"No {path}", "code": "not_found"}}
            route = service.routes.get((self.command, path), lambda _: Answer(404, missing))
            self.answer(route(request))

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def answer(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("x-request-id", "req-1")
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.events is None:
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(answer.promised or len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = answer.promised is not None
                return
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for event in answer.events:
                data = event.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            if answer.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

    return Handler


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    fake = FakeService()
    with serving(LocalServer(("127.0.0.1", 0), _handler(fake))) as fake.url:
        monkeypatch.setenv("OSORA_URL", fake.url)
        monkeypatch.setenv("OSORA_API_KEY", "osk-test")
        yield fake


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory that discovery looks into (see tests/conftest.py). Not there yet."""
    return tmp_path / "data"


class Family:
    """Processes that were started with `mark` in their environment, and all that descends from them."""

    def __init__(self, *run_dirs: Path) -> None:
        self.mark = {"OSORA_TEST_MARK": uuid.uuid4().hex}
        self.run_dirs = [str(path) for path in run_dirs]

    def living(self) -> dict[int, str]:
        """Their pids and command lines."""
        found = {}
        for process in psutil.process_iter():
            try:
                # Redis writes its title over its environment; it stands in the run directory.
                ours = process.cwd() in self.run_dirs or self.mark.items() <= process.environ().items()
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())
            except psutil.Error:
                continue
        return found

    def gone(self, seconds: float) -> bool:
        """Whether none is left within this time (after kill -9 the kernel needs a moment)."""
        deadline = time.monotonic() + seconds
        while self.living() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.living()


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return Family(tmp_path / ".demo" / "data" / "run")
