"""Both clients of the SDK, driven by the same test."""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from osora import AsyncOsora, Osora

MODES = ("sync", "async")
Handler = Callable[[httpx.Request], httpx.Response]


class Client:
    """Either client. `client.got(client.osora.jobs.get("ftjob-1"))` is what came, and
    `client.all(client.osora.jobs.list())` the list of it; `client.pauses` are the seconds that it would have slept."""

    def __init__(self, mode: str, url: str, key: str, handler: Handler | None = None, **settings: Any) -> None:
        self.is_async = mode == "async"
        self.pauses: list[float] = []
        self._loop = asyncio.new_event_loop() if self.is_async else None
        if handler is not None:
            of_mode = httpx.AsyncClient if self.is_async else httpx.Client
            settings["http_client"] = of_mode(transport=httpx.MockTransport(handler))
        # They have the same methods.
        self.osora: Any = (AsyncOsora if self.is_async else Osora)(url, key, **settings)
        if handler is not None:
            self.osora._transport.sleep = self._sleep_async if self.is_async else self.pauses.append

    def got(self, asked: Any) -> Any:
        """What a method returns."""
        return asked if self._loop is None else self._loop.run_until_complete(asked)

    def all(self, asked: Any) -> list[Any]:
        """All of what a method lets iterate."""
        return list(asked) if self._loop is None else self._loop.run_until_complete(_all(asked))

    def next(self, asked: Any) -> Any:
        """The next of it."""
        return next(asked) if self._loop is None else self._loop.run_until_complete(anext(asked))

    def close(self) -> None:
        if self._loop is None:
            self.osora.close()
            return
        self._loop.run_until_complete(self.osora.aclose())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _sleep_async(self, seconds: float) -> None:
        self.pauses.append(seconds)


@contextmanager
def client(mode: str, url: str = "http://osora.test", key: str = "osk-test", **settings: Any) -> Iterator[Client]:
    """One of them; a `handler` plays the service."""
    made = Client(mode, url, key, **settings)
    try:
        yield made
    finally:
        made.close()


async def _all(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]
