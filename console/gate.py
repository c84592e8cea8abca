"""What stands before every page: who is not signed in gets the sign-in page, and no other site gets anything."""

from urllib.parse import quote, urlsplit

import nicegui
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.sessions import COOKIE, Sessions

SCOPE_KEY = "console_session"

_OPEN = {"/sign-in", "/sign-out", "/health", "/favicon.ico"}
_STATIC = "/static/"
# The framework's own files; what else it has below /_nicegui/ is of somebody's pages.
_ASSETS = f"/_nicegui/{nicegui.__version__}/"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_HEADERS = {
    # The framework compiles its templates in the browser, which takes unsafe-eval, and starts by an inline script.
    # It is why the console has an origin of its own, where nothing else lives.
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not "no-referrer": a browser would then send forms with an origin of "null".
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Gate:
    """ASGI middleware. Puts the session into the scope of what it lets through."""

    def __init__(self, app: ASGIApp, sessions: Sessions, public_url: str | None) -> None:
        self._app = app
        self._sessions = sessions
        self._public = urlsplit(public_url).netloc if public_url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._pass(scope, receive, _with_headers(scope, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, _with_headers(scope, send))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except RuntimeError as error:
            # Of the framework's middleware, where a browser has gone before its answer came: no news for a log.
            if str(error) != "No response returned.":
                raise

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to what is not let through."""
        headers, path = Headers(scope=scope), scope["path"]
        is_socket = scope["type"] == "websocket"
        if (is_socket or scope["method"] not in _SAFE) and not self._is_from_here(headers):
            return PlainTextResponse("This came from another site.", 403)
        if path in _OPEN or path.startswith((_STATIC, _ASSETS)):
            return None
        session = self._sessions.find(HTTPConnection(scope).cookies.get(COOKIE))
        if session is not None:
            scope[SCOPE_KEY] = session
            return None
        if not is_socket and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = scope.get("query_string", b"").decode("latin-1")
            wanted = quote(path + (f"?{query}" if query else ""), safe="")
            return RedirectResponse("/sign-in" if path == "/" else f"/sign-in?next={wanted}", 303)
        return PlainTextResponse("Sign in first.", 401)

    def _is_from_here(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        # Nothing is taken apart here: what is no address would be an error then, and not a refusal.
        return origin is not None and origin.rpartition("//")[2] == (self._public or headers.get("host"))


def _with_headers(scope: Scope, send: Send) -> Send:
    # A file's name has its version in it; a page is of one person and one moment.
    is_kept = scope["path"].startswith((_ASSETS, _STATIC))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            if not is_kept:
                headers["cache-control"] = "no-store"
        await send(message)

    return sending
