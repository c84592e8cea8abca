"""Work ends when its client leaves, and otherwise answers or fails as it would alone."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from osora_common.disconnect import unless_gone


def request(gone: asyncio.Event) -> Request:
    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "GET", "path": "/", "headers": []}, receive)


def test_the_result_comes_back() -> None:
    async def scenario() -> None:
        async def work() -> str:
            return "done"

        assert await unless_gone(request(asyncio.Event()), work) == "done"

    asyncio.run(scenario())


def test_an_error_comes_back_as_it_is() -> None:
    async def scenario() -> None:
        async def work() -> str:
            raise ValueError("as it is")

        with pytest.raises(ValueError, match="as it is"):
            await unless_gone(request(asyncio.Event()), work)

    asyncio.run(scenario())


def test_a_client_that_leaves_cancels_the_work() -> None:
    async def scenario() -> None:
        gone, cancelled = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            gone.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return "too late"

        assert await unless_gone(request(gone), work) is None
        assert cancelled.is_set()

    asyncio.run(scenario())
