"""Has inference servers let go of adapters that are no more.

Whoever deletes one has them asked at once. Once a minute they are asked anyway: a worker may have deleted it, because
its time was over or with its tenant, a server may have been away, and a request that began before may have brought it
back.
"""

import anyio

from api.looking import Looking
from registry import references

SECONDS = 60.0


class Forgetting(Looking):
    """Compares what servers hold with what there is, once a minute."""

    def _seconds(self) -> float:
        return SECONDS

    def _failed(self) -> str:
        return "inference servers may hold deleted adapters for another minute"

    async def _look(self) -> None:
        held = await self._gateway.held_adapters()
        known = {adapter for adapters in held.values() for adapter in adapters}
        gone = await anyio.to_thread.run_sync(self._gone, known, limiter=self._thread)
        for url, adapters in held.items():
            if unwanted := sorted(gone.intersection(adapters)):
                await self._gateway.forget(url, unwanted)

    def _gone(self, ids: set[str]) -> set[str]:
        if not ids:
            return set()
        with self._registry.reading() as session:
            return references.gone(session, ids)
