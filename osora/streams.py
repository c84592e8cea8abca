"""Server-sent events: a job's events, which survive a lost connection, and a generation's tokens."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from httpx_sse import EventSource

from osora.errors import OsoraAPIError, OsoraConnectionError, OsoraError
from osora.schemas import Event, Generation
from osora.transport import Transport, error_from

# The service sends a comment every 15 s, so this long a silence means a dead connection.
SILENCE_SECONDS = 45.0
MAX_DELAY_SECONDS = 5.0


def follow(
    transport: Transport,
    path: str,
    after: str | None,
    patience_seconds: float,
    on_lost: Callable[[OsoraError], None] | None = None,
) -> Iterator[Event]:
    """Events after the one named, as they happen, until the job has ended.

    A lost connection is taken up again after the last event received, so none is missed or repeated. `on_lost` hears of
    each, once, before the first new attempt.

    Raises:
        OsoraAPIError: the service refuses (4xx), for instance because the job does not exist.
        OsoraConnectionError: the service stayed away for longer than `patience_seconds`.
    """
    last_id = after.removeprefix("ftevent-") if after else ""
    delay = 0.25
    lost_at: float | None = None  # since when there has been no connection
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=5.0)
        try:
            with transport.stream("GET", path, headers=headers, timeout=timeout) as response:
                lost_at, delay = None, 0.25
                for sse in EventSource(response).iter_sse():
                    if sse.event == "done":
                        return
                    if not sse.data:  # what httpx-sse makes of a comment that follows an event with an id
                        continue
                    last_id = sse.id or last_id
                    yield json.loads(sse.data)
            lost: OsoraError = OsoraConnectionError(transport.target.url, "the event stream ended", interrupted=True)
        except OsoraConnectionError as error:
            lost = error
        except OsoraAPIError as error:
            if error.status < 500 and error.status != 429:
                raise
            lost = error
        if lost_at is None:
            lost_at = time.monotonic()
            if on_lost is not None:
                on_lost(lost)
        if time.monotonic() - lost_at > patience_seconds:
            raise lost
        time.sleep(delay)
        delay = min(delay * 2, MAX_DELAY_SECONDS)


class GenerationStream:
    """A generation while it is being made: iterate for the pieces of text; `result`, with the calls of
    tools, is there at the end."""

    def __init__(self, transport: Transport, body: dict[str, Any]) -> None:
        self._transport = transport
        self._body = body
        self.result: Generation | None = None

    def __iter__(self) -> Iterator[str]:
        with self._transport.stream("POST", "/generate", json=self._body | {"stream": True}) as response:
            for sse in EventSource(response).iter_sse():
                data = json.loads(sse.data)
                if sse.event == "token" and data.get("index", 0) == 0 and "text" in data:
                    yield data["text"]
                elif sse.event == "error":
                    raise error_from(response.status_code, data["error"], response.headers.get("x-request-id"))
                elif sse.event == "done":
                    self.result = data
                    return
        raise OsoraConnectionError(self._transport.target.url, "the generation has no end", interrupted=True)
