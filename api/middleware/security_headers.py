"""What browsers are told of every answer: it is what it says it is, and nobody's page may show it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import docs

_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
_A_YEAR = "max-age=31536000"


class SecurityHeadersMiddleware:
    """Puts the headers on. What belongs to somebody is kept by no cache unless its route says otherwise."""

    def __init__(self, app: ASGIApp, *, shares: bool) -> None:
        self.app = app
        self._shares = shares
        """Whether pages of other origins may call this one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers["content-security-policy"] = docs.policy() if scope["path"] in docs.PATHS else _NOTHING
                if self._shares:
                    headers["cross-origin-resource-policy"] = "cross-origin"
                if scope["scheme"] == "https":
                    headers["strict-transport-security"] = _A_YEAR
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)
