"""Every answer carries `x-request-id`: the client's own, if it sent a usable one, or a new one.

Anthropic's client looks for it under `request-id`.
"""

import ipaddress
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.audit import ORIGIN, Origin

_USABLE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestIdMiddleware:
    """Puts the id on the answer and, for handlers and logs, on `request.state.request_id`; with the client's address it
    is the `ORIGIN` of what is done."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _USABLE.fullmatch(given) else f"req-{uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        ORIGIN.set(Origin(address_of(scope), request_id))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers["request-id"] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


def address_of(scope: Scope) -> str | None:
    """Where the request comes from; None where that is no address, as what a proxy writes may be anything.

    IPv4's are written as such: of IPv6, `::ffff:…`, all of them would be one network.
    """
    client = scope.get("client")
    try:
        found = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found).partition("%")[0] if found else None  # after it there may be any text
