"""Has inference servers hold the bases that were added, and let go of those that were removed.

Every second: a server may have been away, or started again. What a server says decides, so several of the API's
processes may do the same.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio
import httpx

from api.gateway import InferenceGateway
from api.looking import Looking
from registry.added_bases import preparing
from registry.added_bases.preparing import ReadyBase
from registry.context import Registry

logger = logging.getLogger(__name__)

SECONDS = 1.0
# What a server could not load may have room later.
_AGAIN_SECONDS = 30.0

Told = Mapping[str, Mapping[str, Any]]


class Keeping(Looking):
    """Compares what servers hold with what is ready, from the start on."""

    def __init__(self, registry: Registry, gateway: InferenceGateway) -> None:
        super().__init__(registry, gateway)
        self._tried: dict[tuple[str, str], float] = {}
        self._problems: dict[str, str] = {}
        self._wanted.set()

    def problem(self, name: str) -> str | None:
        """Why the base is not loaded by a server that was told to."""
        return self._problems.get(name)

    def _seconds(self) -> float:
        return SECONDS

    def _failed(self) -> str:
        return "inference servers may not hold the bases that they should"

    async def _look(self) -> None:
        wanted = await anyio.to_thread.run_sync(self._ready, limiter=self._thread)
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
