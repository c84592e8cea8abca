"""Ends what a key has open when the key ends: by revocation, by its time, or with its tenant's suspension.

A request is authenticated once, at its beginning; a stream lasts. So whatever streams watches its key here. All
watchers of a process share one look into the database, about twice a second; while nobody watches there is none.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio
from fastapi.responses import StreamingResponse

from api.beside import working_beside
from registry import tenants
from registry.context import Registry
from registry.errors import Unauthorized
from registry.outages import first_line
from registry.tenants import Principal

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_SECONDS = 0.5
_AT_ONCE = 1000


class Revocations:
    """The keys with something open in this process, and the events that tell of their end."""

    def __init__(self, registry: Registry, forget: Callable[[], None]) -> None:
        self._registry = registry
        self._forget = forget
        """Has the process look keys up anew: what it knows to have ended is not let in again."""
        self._watched: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._somebody_watches = asyncio.Event()
        # A thread of its own: whoever keeps the common ones busy must not keep a revoked key alive.
        self._thread = anyio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def working(cls, registry: Registry, forget: Callable[[], None]) -> AsyncIterator["Revocations"]:
        """Revocations that are looked for until the exit."""
        revocations = cls(registry, forget)
        async with working_beside(revocations._look_now_and_then):
            yield revocations

    @asynccontextmanager
    async def watching(self, principal: Principal) -> AsyncIterator[asyncio.Event]:
        """An event that is set within a second of the end of the principal's key."""
        ended = asyncio.Event()
        self._watched[principal.key_id].add(ended)
        self._somebody_watches.set()
        try:
            yield ended
        finally:
            self._watched[principal.key_id].discard(ended)
            if not self._watched[principal.key_id]:
                del self._watched[principal.key_id]

    def watch(self, principal: Principal) -> "KeyWatch":
        """What is done for the principal, for as long as its key is good."""
        return KeyWatch(self, principal)

    async def _look_now_and_then(self) -> None:
        while True:
            if not self._watched:
                self._somebody_watches.clear()
                await self._somebody_watches.wait()
            try:
                ended = await anyio.to_thread.run_sync(self._ended, list(self._watched), limiter=self._thread)
            except Exception as error:
                logger.warning("revoked keys cannot be looked for: %s", first_line(error))
                ended = set()
            if ended:
                self._forget()
            for key_id in ended & self._watched.keys():
                for event in self._watched[key_id]:
                    event.set()
            await asyncio.sleep(_LOOK_SECONDS)

    def _ended(self, key_ids: Collection[str]) -> set[str]:
        ids, ended = list(key_ids), set[str]()
        with self._registry.reading() as session:
            for start in range(0, len(ids), _AT_ONCE):
                ended |= tenants.ended(session, ids[start : start + _AT_ONCE])
        return ended


@dataclass(frozen=True)
class KeyWatch:
    """What is done for a principal, and ends with its key."""

    _revocations: Revocations
    _principal: Principal

    async def work(self, work: Callable[[], Awaitable[T]]) -> T:
        """The work's result. Raises `Unauthorized`, with the work cancelled, if the key ends first."""
        async with self._revocations.watching(self._principal) as ended:
            with anyio.CancelScope() as scope:
                cutting = asyncio.create_task(_cut(ended, lambda: scope))
                try:
                    return await work()
                finally:
                    cutting.cancel()
        raise _key_ended()

    async def pieces(self, pieces: AsyncIterator[T]) -> AsyncIterator[T]:
        """The pieces, as they come. Raises `Unauthorized` when the key ends, also while none comes."""
        scope = anyio.CancelScope()
        async with self._revocations.watching(self._principal) as ended:
            cutting = asyncio.create_task(_cut(ended, lambda: scope))
            try:
                while not ended.is_set():
                    with anyio.CancelScope() as scope:
                        try:
                            piece = await anext(pieces)
                        except StopAsyncIteration:
                            return
                    if not scope.cancelled_caught:
                        yield piece
            finally:
                cutting.cancel()
        raise _key_ended()

    def guard(self, response: StreamingResponse) -> StreamingResponse:
        """The download, which breaks off when the key ends."""
        response.body_iterator = self.pieces(aiter(response.body_iterator))
        return response


async def _cut(ended: asyncio.Event, current: Callable[[], anyio.CancelScope]) -> None:
    await ended.wait()
    current().cancel()


def _key_ended() -> Unauthorized:
    return Unauthorized(
        "this API key was revoked or has expired, or its tenant is suspended",
        code="key_ended",
        next_action="go on with another key",
    )
