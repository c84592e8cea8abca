"""Has inference servers hold the bases that were added, and let go of those that were removed.

Every second: a server may have been away, or started again. What a server says decides, so several of the API's
processes may do the same.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import httpx

from api.gateway import InferenceGateway
from registry.added_bases import preparing
from registry.added_bases.preparing import ReadyBase
from registry.context import Registry
from registry.outages import first_line

logger = logging.getLogger(__name__)

SECONDS = 1.0
# What a server could not load may have room later.
_AGAIN_SECONDS = 30.0

Told = Mapping[str, Mapping[str, Any]]


class Keeping:
    """Compares what servers hold with what is ready."""

    def __init__(self, registry: Registry, gateway: InferenceGateway) -> None:
        self._registry = registry
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._tried: dict[tuple[str, str], float] = {}
        self._problems: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def watching(cls, registry: Registry, gateway: InferenceGateway) -> AsyncIterator[Self]:
        """Does so until exit."""
        keeping = cls(registry, gateway)
        task = asyncio.create_task(keeping._work())
        try:
            yield keeping
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def soon(self) -> None:
        """Does so as soon as possible. For any thread."""
        self._loop.call_soon_threadsafe(self._wanted.set)

    def problem(self, name: str) -> str | None:
        """Why the base is not loaded by a server that was told to."""
        return self._problems.get(name)

    async def _work(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as error:
                logger.warning("inference servers may not hold the bases that they should: %s", first_line(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), SECONDS)
            self._wanted.clear()

    async def _look(self) -> None:
        wanted = await asyncio.to_thread(self._ready)
        told = await self._gateway.added_bases()
        problems = {
            name: str(one["problem"]) for held in told.values() for name, one in held.items() if one.get("problem")
        }
        self._problems = {name: problem for name, problem in problems.items() if name in wanted}
        await asyncio.gather(*(self._correct(url, wanted, held) for url, held in told.items()))

    async def _correct(self, url: str, wanted: Mapping[str, ReadyBase], held: Told) -> None:
        for name, one in held.items():
            if name not in wanted or wanted[name].id != one["id"]:
                with suppress(httpx.HTTPError):
                    await self._gateway.tell(url, "/bases/remove", {"name": name})
        now = self._loop.time()
        for name, base in wanted.items():
            there = held.get(name)
            is_there = there is not None and there["id"] == base.id
            has_failed = is_there and there is not None and bool(there.get("problem"))
            if is_there and not (
                has_failed and now - self._tried.get((url, base.id), -_AGAIN_SECONDS) >= _AGAIN_SECONDS
            ):
                continue
            self._tried[url, base.id] = now
            body = {"name": name, "id": base.id, "source": base.source, "content": base.content}
            with suppress(httpx.HTTPError):
                await self._gateway.tell(url, "/bases", body)

    def _ready(self) -> dict[str, ReadyBase]:
        configured = self._registry.settings.base_paths
        with self._registry.reading() as session:
            return {base.name: base for base in preparing.ready(session) if base.name not in configured}
