"""A line for every request: what was asked, by whom, and what became of it. Nothing of a query, a header or a body."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.request_id import address_of
from api.validation import cut

logger = logging.getLogger("osora.access")

_LONGEST_PATH = 200


class AccessLogMiddleware:
    """Writes it when the answer has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            milliseconds = (time.perf_counter() - began) * 1000
            principal = scope["state"].get("principal")
            logger.info(
                "%s %s %s %d %.0fms %s tenant=%s key=%s",
                address_of(scope) or "-",
                _plain(scope["method"], 20),
                _plain(scope["path"], _LONGEST_PATH),
                status,
                milliseconds,
                scope["state"]["request_id"],
                principal.tenant_id if principal else "-",
                principal.key_id if principal else "-",
            )


def _plain(text: str, length: int) -> str:
    """Printable ASCII without blanks, so that no client writes a line or a column of its own."""
    return "".join(c if "!" <= c <= "~" else f"\\x{ord(c):02x}" for c in cut(text, length))
