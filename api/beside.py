"""Work beside the requests."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


@asynccontextmanager
async def working_beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Has work done until exit. What one of anyio's threads does for it still ends: the database would lose the
    connection that the thread holds."""
    async with anyio.create_task_group() as tasks:  # whose cancellation comes again where one is missed
        tasks.start_soon(work)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
