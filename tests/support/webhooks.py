"""Real receivers of webhooks, and a clock for what waits in the registry."""

import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from sqlalchemy import select, update

from registry.context import Registry
from registry.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tests.support.servers import LocalServer, QuietHandler, serving

PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Received:
    """A request that came in."""

    path: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Answering:
    """Answers with a status and no body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


@dataclass
class Receiver:
    """A server that keeps what it is sent. `answer` says how it answers, and may be set anew at any time."""

    answer: Answering = field(default_factory=lambda: status(200))
    received: "queue.Queue[Received]" = field(default_factory=queue.Queue)
    port: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    """Set when the server stops: an answer that waits must end now."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def next(self) -> Received:
        """The next request, waited for."""
        return self.received.get(timeout=PATIENCE_SECONDS)


@contextmanager
def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """Runs a receiver on a port of its own, or on the port that it had before."""
    receiver.ending.clear()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.put(Received(self.path, headers, body))
            receiver.answer(self)

    class Server(LocalServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            return  # whoever sends webhooks hangs up on what takes too long

    server = Server((host, receiver.port), Handler)
    receiver.port = server.server_address[1]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server):
        try:
            yield receiver
        finally:
            receiver.ending.set()


def pass_time(registry: Registry, seconds: float) -> None:
    """Makes all that webhooks wait for look so much longer ago, without waiting."""
    with registry.transaction() as session:
        session.execute(
            update(WebhookDelivery).values(
                due_at=WebhookDelivery.due_at - seconds,
                claimed_until=WebhookDelivery.claimed_until - seconds,
            )
        )
        for endpoint in session.scalars(select(WebhookEndpoint)):
            if endpoint.failing_since is not None:
                endpoint.failing_since -= seconds
            endpoint.old_salts = [{**old, "expires_at": old["expires_at"] - seconds} for old in endpoint.old_salts]
