"""Work beside requests: at its end, what a thread does for it has ended too."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest

from api.beside import working_beside
from api.in_flight import InFlight

Work = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def in_flight(work: Work) -> AsyncIterator[None]:
    async with aclosing(InFlight[None](1)) as pieces:
        pieces.begin("tenant", "name", work)
        yield


@pytest.mark.parametrize("doing", [working_beside, in_flight])
def test_a_thread_has_ended_at_the_exit(doing: Callable[[Work], AbstractAsyncContextManager[None]]) -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def in_thread() -> None:
        began.set()
        assert may_end.wait(60)
        ended.set()

    async def main() -> None:
        async with doing(lambda: anyio.to_thread.run_sync(in_thread)):
            assert await anyio.to_thread.run_sync(began.wait, 60)
            asyncio.get_running_loop().call_later(0.1, may_end.set)  # when the exit has begun
        assert ended.is_set()

    asyncio.run(main())


@pytest.mark.parametrize("doing", [working_beside, in_flight])
def test_what_only_waits_is_given_up(doing: Callable[[Work], AbstractAsyncContextManager[None]]) -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.timeout(60), doing(wait):
            await waiting.wait()

    asyncio.run(main())
