"""Lines for what takes long and much memory: few at a time, tenants in turns, and whoever leaves gives up its place."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from inference.errors import ServerError

_MOST = 64


class Line:
    """One piece of work of each tenant at a time, and `at_once` of all.

    A tenant has at most `most_of_tenant` in the line, with what is being worked on; all together have 64.
    """

    def __init__(self, what: str, *, at_once: int, most_of_tenant: int) -> None:
        """`what`: they are called this in the error, such as "exports"."""
        self._what = what
        self._most_of_tenant = most_of_tenant
        self._working = asyncio.Semaphore(at_once)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._places: Counter[str] = Counter()

    @contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """A place in the line. Raises ServerError 429 if the tenant, or all together, have too many."""
        own, all_ = self._places[tenant], self._places.total()
        if own >= self._most_of_tenant or all_ >= _MOST:
            raise ServerError(
                429, "rate_limit_error", "overloaded",
                f"{own} {self._what} of yours and {all_} in all are being worked on or wait; "
                f"{self._most_of_tenant} and {_MOST} may",
                next_action="try again when one of them has ended", retry_after=10,
            )  # fmt: skip
        self._places[tenant] += 1
        try:
            yield
        finally:
            self._places[tenant] -= 1
            if not self._places[tenant]:
                del self._places[tenant]

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Waits for the tenant's turn, in a place that it has already."""
        async with self._turns.setdefault(tenant, asyncio.Lock()), self._working:
            yield
