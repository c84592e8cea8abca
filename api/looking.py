"""Looking again and again at what inference servers hold, and at once where that is asked for."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

import anyio

from api.beside import working_beside
from api.gateway import InferenceGateway
from registry.context import Registry
from registry.outages import first_line

logger = logging.getLogger(__name__)


class Looking(ABC):
    """Compares what servers hold with what the registry says. An attempt that fails is told of, and made again."""

    def __init__(self, registry: Registry, gateway: InferenceGateway) -> None:
        self._registry = registry
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._thread = anyio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def watching(cls, registry: Registry, gateway: InferenceGateway) -> AsyncIterator[Self]:
        """Does so until exit."""
        looking = cls(registry, gateway)
        async with working_beside(looking._work):
            yield looking

    def soon(self) -> None:
        """Does so as soon as possible. For any thread."""
        self._loop.call_soon_threadsafe(self._wanted.set)

    async def _work(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._seconds())
            self._wanted.clear()
            try:
                await self._look()
            except Exception as error:
                logger.warning("%s: %s", self._failed(), first_line(error))

    @abstractmethod
    def _seconds(self) -> float:
        """How long until it looks unasked."""

    @abstractmethod
    def _failed(self) -> str:
        """What a failed attempt may mean."""

    @abstractmethod
    async def _look(self) -> None: ...
