"""Nobody passes who is not signed in, and nothing that another site's page sent."""

from collections.abc import Iterator
from typing import Any

import nicegui
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from console.gate import SCOPE_KEY, Gate
from console.sessions import COOKIE, Sessions

PAGE = {"accept": "text/html"}
ORIGIN = "http://testserver"


async def answer(request: Request) -> Response:
    return PlainTextResponse("in" if SCOPE_KEY in request.scope else "open")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


@pytest.fixture
def sessions() -> Sessions:
    return Sessions("http://127.0.0.1:1", 60.0)


def client_of(sessions: Sessions, public_url: str | None = None) -> TestClient:
    app = Starlette(
        routes=[WebSocketRoute("/{path:path}", talk), Route("/{path:path}", answer, methods=["GET", "POST"])]
    )
    app.add_middleware(Gate, sessions=sessions, public_url=public_url)
    return TestClient(app, follow_redirects=False)


@pytest.fixture
def client(sessions: Sessions) -> Iterator[TestClient]:
    with client_of(sessions) as client:
        yield client


@pytest.fixture
def token(sessions: Sessions) -> str:
    return sessions.begin(sessions.client("osk-key"))


def test_who_is_not_signed_in_comes_to_the_door_and_back(client: TestClient) -> None:
    assert (
        client.get("/jobs?status=failed", headers=PAGE).headers["location"] == "/sign-in?next=%2Fjobs%3Fstatus%3Dfailed"
    )
    assert client.get("/", headers=PAGE).headers["location"] == "/sign-in"
    assert client.get("/jobs").status_code == 401
    assert client.post("/_nicegui/client/1/upload/2", headers={"origin": ORIGIN}).status_code == 401
    assert client.get("/_nicegui/auto/static/1/export.zip").status_code == 401
    for path in ("/sign-in", "/health", "/static/console.css", f"/_nicegui/{nicegui.__version__}/static/nicegui.js"):
        assert client.get(path).text == "open", path
    for path in ("/sign-in/more", "/healthy", "/favicon.ico.html"):
        assert client.get(path).status_code == 401, path
    # Who was signed out meanwhile, and presses the button, is not told to sign in first.
    assert client.post("/sign-out", headers={"origin": ORIGIN}).text == "open"


def test_who_is_signed_in_passes_until_they_sign_out(client: TestClient, sessions: Sessions, token: str) -> None:
    client.cookies.set(COOKIE, token)
    assert client.get("/jobs", headers=PAGE).text == "in"
    sessions.end(token)
    assert client.get("/jobs", headers=PAGE).status_code == 303


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "http://["])
def test_what_another_site_sends_is_refused(client: TestClient, token: str, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    client.cookies.set(COOKIE, token)
    for path in ("/sign-in", "/sign-out", "/_nicegui/client/1/upload/2"):
        assert client.post(path, headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_nicegui_ws/socket.io/", headers=headers):
        pass


def test_sockets_of_its_own_pages_are_let_in_and_nobody_elses(client: TestClient, token: str) -> None:
    own = {"origin": ORIGIN}
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_nicegui_ws/socket.io/", headers=own):
        pass
    client.cookies.set(COOKIE, token)
    with client.websocket_connect("/_nicegui_ws/socket.io/", headers=own):
        pass


def test_behind_a_proxy_its_public_address_is_what_counts(sessions: Sessions) -> None:
    with client_of(sessions, "https://console.example.org") as client:
        assert client.post("/sign-in", headers={"origin": "https://console.example.org"}).status_code == 200
        assert client.post("/sign-in", headers={"origin": ORIGIN}).status_code == 403


def test_every_answer_says_what_a_browser_may_do_with_it(client: TestClient) -> None:
    headers: Any = client.get("/sign-in").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "http:" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "cache-control" not in client.get("/static/console.css").headers
