"""Has inference servers let go of adapters that are no more.

Whoever deletes one has them asked at once. Once a minute they are asked anyway: a worker may have deleted it, because
its time was over or with its tenant, a server may have been away, and a request that began before may have brought it
back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from api.gateway import InferenceGateway
from registry import references
from registry.context import Registry
from registry.outages import first_line

logger = logging.getLogger(__name__)

SECONDS = 60.0


class Forgetting:
    """Compares what servers hold with what there is."""

    def __init__(self, registry: Registry, gateway: InferenceGateway) -> None:
        self._registry = registry
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def watching(cls, registry: Registry, gateway: InferenceGateway) -> AsyncIterator[Self]:
        """Does so once a minute, until exit."""
        forgetting = cls(registry, gateway)
        task = asyncio.create_task(forgetting._work())
        try:
            yield forgetting
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def soon(self) -> None:
        """Does so as soon as possible. For any thread."""
        self._loop.call_soon_threadsafe(self._wanted.set)

    async def _look(self) -> None:
        try:
            held = await self._gateway.held_adapters()
            gone = await asyncio.to_thread(self._gone, {adapter for adapters in held.values() for adapter in adapters})
            for url, adapters in held.items():
                if unwanted := sorted(gone.intersection(adapters)):
                    await self._gateway.forget(url, unwanted)
        except Exception as error:
            logger.warning("inference servers may hold deleted adapters for another minute: %s", first_line(error))

    async def _work(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), SECONDS)
            self._wanted.clear()
            await self._look()

    def _gone(self, ids: set[str]) -> set[str]:
        if not ids:
            return set()
        with self._registry.reading() as session:
            return references.gone(session, ids)
