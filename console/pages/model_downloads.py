"""Adapters and usage as files: passed on from the API as they come."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from nicegui import app

from console.failures import sentence
from console.gate import SCOPE_KEY
from console.sessions import Session, SignedOutError
from osora.errors import OsoraAPIError, OsoraError
from osora.sdk import AsyncOsora

Format = Literal["osora", "lora", "merged", "gguf"]


@app.get("/downloads/adapters/{adapter_id}")
async def adapter(request: Request, adapter_id: str, format: Format) -> Response:
    """A ZIP. What the API refuses is said instead, in its own sentence."""

    async def begin(osora: AsyncOsora) -> Response:
        pieces = osora.adapters.pieces(adapter_id, format)
        first = await anext(pieces, b"")
        return StreamingResponse(
            _from(first, pieces), media_type="application/zip", headers=_named(f"{adapter_id}-{format}.zip")
        )

    return await _answered(request, begin)


@app.get("/downloads/usage.csv")
async def usage(
    request: Request, since: str, until: str, group_by: Annotated[tuple[str, ...], Query()] = ("day",)
) -> Response:
    """A table."""

    async def begin(osora: AsyncOsora) -> Response:
        table = await osora.usage.csv(since=since, until=until, group_by=group_by)
        return Response(table, media_type="text/csv", headers=_named("usage.csv"))

    return await _answered(request, begin)


async def _answered(request: Request, begin: Callable[[AsyncOsora], Coroutine[None, None, Response]]) -> Response:
    session: Session = request.scope[SCOPE_KEY]
    session.touch()
    try:
        return await begin(session.osora)
    except SignedOutError:
        return PlainTextResponse("Sign in first.", 401)
    except OsoraError as error:
        status = error.status if isinstance(error, OsoraAPIError) else 502
        return PlainTextResponse(f"{sentence(error)}\n", status)


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _named(name: str) -> dict[str, str]:
    # Quotes and controls are in no id of ours, and a header must not depend on that.
    safe = "".join(letter for letter in name if letter.isalnum() or letter in "._-")
    return {"content-disposition": f'attachment; filename="{safe}"'}
