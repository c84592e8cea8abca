"""A few requests of a tenant at once where threads are shared: whoever sends a thousand waits behind itself."""

import asyncio
from weakref import WeakValueDictionary

_AT_ONCE = 4
"""More would be no faster: they share one interpreter."""


class Lanes:
    """One for each tenant that is asking."""

    def __init__(self) -> None:
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, tenant_id: str) -> asyncio.Semaphore:
        """The tenant's, to be held while a request of its is carried out."""
        lane = self._of.get(tenant_id)
        if lane is None:
            lane = self._of[tenant_id] = asyncio.Semaphore(_AT_ONCE)
        return lane
