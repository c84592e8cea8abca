"""Server-sent events: a job's events, which survive a lost connection, and a generation's tokens."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from osora.errors import OsoraAPIError, OsoraConnectionError, OsoraError
from osora.schemas import Event, Generation
from osora.sdk.attempts import error_from
from osora.sdk.call import Call
from osora.sdk.transport import AsyncTransport, Transport

# The service sends a comment every 15 s, so this long a silence means a dead connection.
SILENCE_SECONDS = 45.0
MAX_DELAY_SECONDS = 5.0


@dataclass(frozen=True)
class Follow:
    """Events after the one named, as they happen, until the job has ended.

    A lost connection is taken up again after the last event received, so none is missed or repeated. `on_lost` hears of
    each, once, before the first new attempt.

    Raises, while it is iterated:
        OsoraAPIError: the service refuses (4xx), for instance because the job does not exist.
        OsoraConnectionError: the service stayed away for longer than `patience_seconds`.
    """

    path: str
    after: str | None
    patience_seconds: float
    on_lost: Callable[[OsoraError], None] | None

    def sync(self, transport: Transport) -> Iterator[Event]:
        line = _Line(self, transport.target.url)
        while not line.is_done:
            try:
                with transport.stream(line.call()) as response:
                    line.begin()
                    for sse in EventSource(response).iter_sse():
                        if event := line.take(sse):
                            yield event
                        if line.is_done:
                            return
                line.end()
            except (OsoraConnectionError, OsoraAPIError) as error:
                transport.sleep(line.lost(error))

    async def asynchronous(self, transport: AsyncTransport) -> AsyncIterator[Event]:
        line = _Line(self, transport.target.url)
        while not line.is_done:
            try:
                async with transport.stream(line.call()) as response:
                    line.begin()
                    async for sse in EventSource(response).aiter_sse():
                        if event := line.take(sse):
                            yield event
                        if line.is_done:
                            return
                line.end()
            except (OsoraConnectionError, OsoraAPIError) as error:
                await transport.sleep(line.lost(error))


class _Line:
    """A connection that is made again whenever it is lost."""

    def __init__(self, asked: Follow, url: str) -> None:
        self._asked = asked
        self._url = url
        self._last_id = (asked.after or "").removeprefix("ftevent-")
        self._delay = 0.25
        self._lost_at: float | None = None  # since when there has been no connection
        self.is_done = False

    def call(self) -> Call[Any]:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self._last_id} if self._last_id else {})
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=5.0)
        return Call("GET", self._asked.path, headers=headers, timeout=timeout, retries=False)

    def begin(self) -> None:
        self._lost_at, self._delay = None, 0.25

    def take(self, sse: ServerSentEvent) -> Event | None:
        self.is_done = sse.event == "done"
        if self.is_done or not sse.data:  # httpx-sse makes an empty one of a comment that follows an event with an id
            return None
        self._last_id = sse.id or self._last_id
        event: Event = json.loads(sse.data)
        return event

    def end(self) -> None:
        """Raises `OsoraConnectionError`: the stream has ended, and the job has not."""
        raise OsoraConnectionError(self._url, "the event stream ended", interrupted=True)

    def lost(self, error: OsoraConnectionError | OsoraAPIError) -> float:
        """Seconds until the next attempt. Raises the error if there is none."""
        if isinstance(error, OsoraAPIError) and error.is_refusal:
            raise error
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            if self._asked.on_lost is not None:
                self._asked.on_lost(error)
        if time.monotonic() - self._lost_at > self._asked.patience_seconds:
            raise error
        delay, self._delay = self._delay, min(self._delay * 2, MAX_DELAY_SECONDS)
        return delay


@dataclass(frozen=True)
class Stream:
    """A generation, piece by piece."""

    body: dict[str, Any]

    def sync(self, transport: Transport) -> "GenerationStream":
        return GenerationStream(transport, self.body)

    def asynchronous(self, transport: AsyncTransport) -> "AsyncGenerationStream":
        return AsyncGenerationStream(transport, self.body)


class _Generating:
    """A generation while it is being made. `result`, with the calls of tools, is there at the end."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._call: Call[Any] = Call("POST", "/generate", json=body | {"stream": True})
        self.result: Generation | None = None

    def _take(self, sse: ServerSentEvent, response: httpx.Response) -> str | None:
        """A piece of the first answer's text. Raises `OsoraAPIError` for a failure in the middle."""
        data = json.loads(sse.data)
        if sse.event == "error":
            raise error_from(response, data["error"])
        if sse.event == "done":
            self.result = data
        return data["text"] if sse.event == "token" and data.get("index", 0) == 0 and "text" in data else None


class GenerationStream(_Generating):
    """A generation while it is being made: iterate for the pieces of text; `result`, with the calls of tools, is there
    at the end."""

    def __init__(self, transport: Transport, body: dict[str, Any]) -> None:
        super().__init__(body)
        self._transport = transport

    def __iter__(self) -> Iterator[str]:
        with self._transport.stream(self._call) as response:
            for sse in EventSource(response).iter_sse():
                if (piece := self._take(sse, response)) is not None:
                    yield piece
                if self.result is not None:
                    return
        raise _endless(self._transport.target.url)


class AsyncGenerationStream(_Generating):
    """A generation while it is being made: iterate for the pieces of text; `result`, with the calls of tools, is there
    at the end."""

    def __init__(self, transport: AsyncTransport, body: dict[str, Any]) -> None:
        super().__init__(body)
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[str]:
        async with self._transport.stream(self._call) as response:
            async for sse in EventSource(response).aiter_sse():
                if (piece := self._take(sse, response)) is not None:
                    yield piece
                if self.result is not None:
                    return
        raise _endless(self._transport.target.url)


def _endless(url: str) -> OsoraConnectionError:
    return OsoraConnectionError(url, "the generation has no end", interrupted=True)
