"""Work that several requests may wait for, and that goes on when none of them does any more."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio

Result = TypeVar("Result")


class InFlight(Generic[Result]):
    """Pieces of work by their names, each done once at a time, and so many at once of one tenant."""

    def __init__(self, most_of_tenant: int) -> None:
        self.most_of_tenant = most_of_tenant
        self._tasks: dict[str, asyncio.Task[Result]] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._of_tenants: Counter[str] = Counter()

    def begin(
        self, tenant: str, name: str, work: Callable[[], Coroutine[Any, Any, Result]]
    ) -> "asyncio.Task[Result] | None":
        """The work of this name, begun if it is not being done; None where the tenant has too much of it already."""
        if name in self._tasks:
            return self._tasks[name]
        if self._of_tenants[tenant] >= self.most_of_tenant:
            return None
        scope = self._scopes[name] = anyio.CancelScope()
        task = self._tasks[name] = asyncio.create_task(_within(scope, work))
        self._of_tenants[tenant] += 1
        task.add_done_callback(lambda _: self._end(tenant, name))
        return task

    def _end(self, tenant: str, name: str) -> None:
        del self._tasks[name], self._scopes[name]
        self._of_tenants -= Counter([tenant])

    async def aclose(self) -> None:
        """Gives up what is being done. What a thread does with the database for it still ends."""
        tasks = list(self._tasks.values())
        for scope in self._scopes.values():
            scope.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _within(scope: anyio.CancelScope, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    with scope:
        return await work()
    raise asyncio.CancelledError  # given up
