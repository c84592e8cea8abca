"""Refuses bodies that are too large, before they fill memory or disk.

FastAPI has a `max_body_size` of its own, which answers in plain text; ours keeps to the one error shape.
"""

import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.uploads import PART_BYTES

_JSON_BYTES = 4 * 1024 * 1024
_MULTIPART_BYTES = 64 * 1024
"""What an upload has around the file."""
_FILES = re.compile(r"(/v1)?/files|/adapters")
_PARTS = re.compile(r"(/v1)?/uploads/[^/]+/parts")


class BodyLimitMiddleware:
    """Limits files and adapters to `upload_bytes`, parts of one to theirs, and all other bodies to a few megabytes."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int) -> None:
        self.app = app
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope)
        declared = Headers(scope=scope).get("content-length", "0")
        is_over = declared.isdigit() and int(declared) > limit
        received = 0

        async def receive_within_limit() -> Message:
            # An HTTPException is the one kind that FastAPI lets through while it reads a body.
            nonlocal received
            if is_over:
                raise _too_large(limit)
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            return message

        await self.app(scope, receive_within_limit, send)

    def _limit(self, scope: Scope) -> int:
        if scope["method"] == "POST" and _FILES.fullmatch(scope["path"]):
            return self._upload_bytes + _MULTIPART_BYTES
        if scope["method"] == "POST" and _PARTS.fullmatch(scope["path"]):
            return PART_BYTES + _MULTIPART_BYTES
        return _JSON_BYTES


def _too_large(limit: int) -> HTTPException:
    # The connection stays open, and the server throws away what is still coming: a client that sends before it reads
    # would find a closed one reset, and the answer lost with it.
    return HTTPException(413, f"the body is over {limit} bytes")
