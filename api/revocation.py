"""Ends what a key has open when the key ends: by revocation, by its time, or with its tenant's suspension.

A request is authenticated once, at its beginning; a stream lasts. So whatever streams watches its key here. All watchers
of a process share one look into the database, about twice a second; while nobody watches there is none.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from registry import tenants
from registry.context import Registry
from registry.errors import Unauthorized
from registry.outages import DATABASE_OUTAGES, first_line
from registry.tenants import Principal

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_AT_ONCE = 1000


class Revocations:
    """The keys with something open in this process, and the events that tell of their end."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._watched: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._somebody_watches = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def working(cls, registry: Registry) -> AsyncIterator["Revocations"]:
        """Revocations that are looked for until the exit."""
        revocations = cls(registry)
        # A thread of its own: whoever keeps the common ones busy must not keep a revoked key alive.
        with ThreadPoolExecutor(1, "revocations") as thread:
            looking = asyncio.create_task(revocations._look_now_and_then(thread))
            try:
                yield revocations
            finally:
                looking.cancel()
                await asyncio.wait([looking])

    @asynccontextmanager
    async def watching(self, principal: Principal) -> AsyncIterator[asyncio.Event]:
        """An event that is set within a second of the end of the principal's key."""
        ended = asyncio.Event()
        self._watched[principal.key_id].add(ended)
        self._somebody_watches.set()
        try:
            yield ended
        finally:
            events = self._watched[principal.key_id]
            events.discard(ended)
            if not events:
                del self._watched[principal.key_id]

    async def _look_now_and_then(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._watched:
                self._somebody_watches.clear()
                await self._somebody_watches.wait()
            try:
                ended = await loop.run_in_executor(thread, self._ended, list(self._watched))
            except DATABASE_OUTAGES as error:
                logger.warning("revoked keys cannot be looked for: %s", first_line(error))
                ended = set()
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


def key_ended() -> Unauthorized:
    """What a stream says whose key has ended."""
    return Unauthorized(
        "this API key was revoked or has expired, or its tenant is suspended",
        code="key_ended",
        next_action="go on with another key",
    )
