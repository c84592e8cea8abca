"""The bytes of an answer as they come, for whoever passes them on."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from osora.sdk.call import Call
from osora.sdk.transport import AsyncTransport, Transport


@dataclass(frozen=True)
class Pieces:
    """What is at a path. Raises `OsoraError`s while it is iterated; what has come by then is not whole."""

    path: str
    params: Mapping[str, Any]

    def sync(self, transport: Transport) -> Iterator[bytes]:
        with transport.stream(self._call()) as response:
            yield from response.iter_bytes()

    async def asynchronous(self, transport: AsyncTransport) -> AsyncIterator[bytes]:
        async with transport.stream(self._call()) as response:
            async for piece in response.aiter_bytes():
                yield piece

    def _call(self) -> Call[Any]:
        return Call("GET", self.path, params=self.params)
