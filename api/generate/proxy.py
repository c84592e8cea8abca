"""Passing an inference server's answer on, and a client's disconnect back."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from api.errors import body_of
from api.gateway import close
from api.revocation import KeyWatch
from osora_common.disconnect import CLIENT_GONE, unless_gone
from registry.errors import OsoraError, Unauthorized, Unavailable

_REFUSED = (401, 403)
_PASSED = ("retry-after", "content-disposition")


async def pass_on(request: Request, ask: Callable[[], Awaitable[httpx.Response]], key: KeyWatch) -> Response:
    """The inference server's answer, status and bytes unchanged; a client that leaves, or whose key ends, ends its
    request."""
    upstream = await key.work(lambda: unless_gone(request, ask))
    if upstream is None:
        return Response(status_code=CLIENT_GONE)
    if upstream.status_code in _REFUSED:
        await close(upstream)
        raise Unavailable(
            "the inference server refuses our internal token",
            code="inference_refused",
            next_action="give every process the same OSORA_INTERNAL_TOKEN, or the same data directory",
        )
    headers = {name: upstream.headers[name] for name in _PASSED if name in upstream.headers}
    media_type = upstream.headers.get("content-type", "application/json")
    if media_type.startswith("text/event-stream"):
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **headers}
        return PassedOn(upstream, _stream(key.pieces(upstream.aiter_raw())), media_type, headers)
    if media_type == "application/zip":
        # With the length, so that a client notices what is cut off.
        headers = {"content-length": upstream.headers["content-length"], **headers}
        return PassedOn(upstream, key.pieces(upstream.aiter_raw()), media_type, headers)
    try:
        content = await key.work(lambda: unless_gone(request, upstream.aread))
    except httpx.TransportError as error:
        raise _broken_off() from error
    finally:
        await close(upstream)
    if content is None:
        return Response(status_code=CLIENT_GONE)
    return Response(content, upstream.status_code, headers, media_type)


class PassedOn(StreamingResponse):
    """An answer that is passed on as it comes, and given up however the passing ends.

    Not at the end of its generator, which may never be begun, nor in a background task, which an error leaves out.
    """

    def __init__(
        self, upstream: httpx.Response, pieces: AsyncIterator[bytes], media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(pieces, upstream.status_code, headers, media_type)
        self._upstream = upstream
        self.held = AsyncExitStack()
        """What is given back once the passing has ended."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        self.body_iterator = self._given_back_at_its_end(self.body_iterator)
        try:
            await super().__call__(scope, receive, send)
        finally:
            await close(self._upstream)
            await self.held.aclose()

    async def _given_back_at_its_end(self, pieces: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """The pieces. Before the client hears that there are no more: it may send its next request at once."""
        async for piece in pieces:
            yield piece
        await self.held.aclose()


async def _stream(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            yield piece
    except (httpx.TransportError, Unauthorized) as error:
        said = error if isinstance(error, Unauthorized) else _broken_off()
        # Blank lines end whatever event was cut off.
        yield b"\n\n" + format_sse_event(event="error", data_str=_error_json(said))


def _broken_off() -> OsoraError:
    return Unavailable(
        "the inference server broke off", code="inference_unavailable", next_action="send the request again"
    )


def _error_json(error: OsoraError) -> str:
    return json.dumps(body_of(error).model_dump(exclude_none=True))
