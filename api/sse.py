"""A job's events as they happen, as server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.types import Receive, Scope, Send

from api.event_reader import EventReader, Page, Watcher
from api.revocation import Revocations
from registry.tenants import Principal

HEARTBEAT_SECONDS = 15.0


class EventStream(StreamingResponse):
    """The events of a page and those after it, until the job has ended; then `done` with the job.

    Ends without `done` when the server stops or the key ends: the client comes back with `Last-Event-ID`. Raises
    `RateLimited` or `Unavailable` before it begins.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        reader: EventReader,
        revocations: Revocations,
        principal: Principal,
        job_id: str,
        page: Page,
    ) -> None:
        # Proxies that buffer (nginx) would hold events back.
        super().__init__((), headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._reader = reader
        self._revocations = revocations
        self._principal = principal
        self._job_id = job_id
        self._items = page.items
        self._after = page.position
        self._has_more = page.has_more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        async with self._revocations.watching(self._principal) as ended:
            with self._reader.watching(
                self._principal, self._job_id, after=self._after, has_more=self._has_more
            ) as watcher:
                ending = asyncio.create_task(_end(watcher, ended))
                try:
                    self.body_iterator = self._follow(watcher)
                    await super().__call__(scope, receive, send)
                finally:
                    ending.cancel()

    async def _follow(self, watcher: Watcher) -> AsyncIterator[bytes]:
        # Something at once, so that proxies and clients know that the stream has begun.
        yield KEEPALIVE_COMMENT
        items, self._items = self._items, ()  # a stream may be open for hours
        for _, sent in items:
            yield sent
        del items
        said_something_at = time.monotonic()
        while not watcher.is_over:
            watcher.changed.clear()
            if watcher.is_behind:
                async for sent in self._missed(watcher):
                    yield sent
                    said_something_at = time.monotonic()
            while watcher.items and not watcher.is_over:
                number, sent = watcher.items.popleft()
                if number > self._after:
                    self._after = number
                    yield sent
                    said_something_at = time.monotonic()
            if watcher.done is not None and not watcher.is_behind:
                if watcher.done:
                    yield watcher.done
                return
            if not await _is_set_within(watcher.changed, said_something_at + HEARTBEAT_SECONDS - time.monotonic()):
                yield KEEPALIVE_COMMENT
                said_something_at = time.monotonic()

    async def _missed(self, watcher: Watcher) -> AsyncIterator[bytes]:
        """What the watcher is to read for itself."""
        watcher.begin_reading()
        async for page in self._reader.pages(self._principal, self._job_id, self._after):
            for number, sent in page:
                self._after = number
                yield sent
            if watcher.is_over:
                return
        watcher.has_read(self._after)
        if watcher.is_behind:
            watcher.changed.set()


async def _end(watcher: Watcher, ended: asyncio.Event) -> None:
    await ended.wait()
    watcher.end(None)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
