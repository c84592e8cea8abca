"""Refused requests in the audit log: counted, so that a flood of wrong keys cannot fill it.

A process writes once a minute at most: one record for all that came with no valid key, and one for each of the keys
that most often lacked a scope.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import anyio

from api.beside import working_beside
from registry import audit
from registry.context import Registry
from registry.outages import first_line
from registry.tenants import Principal

logger = logging.getLogger(__name__)

SECONDS = 60.0
_MOST_TOLD = 20
"""Addresses, and keys."""
_MOST_KEPT = 1000


@dataclass(frozen=True)
class _Refused:
    """Where it came from, and with which key if that was a valid one."""

    address: str | None
    tenant_id: str | None = None
    key_id: str | None = None


_OTHERS = _Refused("others")


class Refusals:
    """Those of this process since it last wrote them down."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._counts: Counter[_Refused] = Counter()

    @classmethod
    @asynccontextmanager
    async def recording(cls, registry: Registry) -> AsyncIterator[Self]:
        """Writes them down once a minute, and at exit."""
        refusals = cls(registry)
        try:
            async with working_beside(refusals._work):
                yield refusals
        finally:
            await refusals.write()

    def count(self, principal: Principal | None) -> None:
        """A request was refused: as that of no valid key, or because its key lacks a scope."""
        origin = audit.ORIGIN.get()
        address = None if origin is None else origin.address
        refused = _Refused(address) if principal is None else _Refused(address, principal.tenant_id, principal.key_id)
        self._counts[refused if refused in self._counts or len(self._counts) < _MOST_KEPT else _OTHERS] += 1

    async def write(self) -> None:
        """Writes down what there is. What cannot be written now is kept."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            await anyio.to_thread.run_sync(self._record, counts, limiter=anyio.CapacityLimiter(1))
        except Exception as error:
            logger.warning("%d refused requests are not in the audit log yet: %s", counts.total(), first_line(error))
            self._counts.update(counts)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            await self.write()

    def _record(self, counts: Counter[_Refused]) -> None:
        keyless = Counter({one: count for one, count in counts.items() if one.key_id is None})
        keys = Counter[tuple[str | None, str]]()
        for one, count in counts.items():
            if one.key_id is not None:
                keys[one.tenant_id, one.key_id] += count
        with self._registry.transaction() as session:
            if keyless:
                audit.record(session, None, "authentication.refused", "installation", "installation", **_told(keyless))
            for (tenant_id, key_id), _ in keys.most_common(_MOST_TOLD):
                of_key = Counter({one: count for one, count in counts.items() if one.key_id == key_id})
                audit.record(session, None, "key.refused", "key", key_id, owner_id=tenant_id, **_told(of_key))


def _told(counts: Counter[_Refused]) -> dict[str, Any]:
    most = counts.most_common(_MOST_TOLD)
    return {
        "count": counts.total(),
        "addresses": {one.address or "unknown": count for one, count in most},
        "more_addresses": len(counts) - len(most),
    }
