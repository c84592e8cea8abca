"""A native answer, whole or streamed, as another door gives it."""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from fastapi.responses import JSONResponse, Response, StreamingResponse

Events = AsyncIterator[tuple[str, Any]]
"""Of a native stream: `token`s, then `done` or `error`, each with its data."""


class Translation(ABC):
    """One answer in the making. `id` is its name, at the inference server too."""

    def __init__(self, id: str) -> None:
        self.id = id

    @abstractmethod
    def whole(self, native: dict[str, Any]) -> dict[str, Any]:
        """An answer that is not streamed."""

    @abstractmethod
    def streamed(self, events: Events) -> AsyncIterator[bytes]:
        """The stream that says what the events say."""

    @abstractmethod
    def refused(self, said: dict[str, Any], status: int) -> dict[str, Any]:
        """The body of an error, in its shape and with the names that its fields have here."""

    def translate(self, native: Response) -> Response:
        """The native response in this shape; what is refused keeps its status."""
        if isinstance(native, StreamingResponse):
            native.body_iterator = self.streamed(_events(native.body_iterator))
            return native
        if native.media_type != "application/json":
            return native  # the client is gone
        said = json.loads(bytes(native.body))
        passed = {name: value for name, value in native.headers.items() if name == "retry-after" or "ratelimit" in name}
        if native.status_code != 200:
            return JSONResponse(self.refused(said, native.status_code), native.status_code, passed)
        return JSONResponse(self.whole(said), headers=passed)


def own_part(native: dict[str, Any]) -> dict[str, Any]:
    """What no other door has a name for."""
    return {name: native[name] for name in ("timing", "receipt")}


async def _events(pieces: AsyncIterable[Any]) -> Events:
    """The events of a native stream, however it is cut into pieces."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        for event in whole:
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
            try:
                found = fields[b"event"].decode(), json.loads(fields[b"data"])
            except (KeyError, ValueError):
                continue  # an event that was cut off: the error that comes next says so
            yield found
