"""The connections behind a request are given back, however it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from api.gateway import InferenceGateway
from api.generate.proxy import pass_on
from api.revocation import Revocations
from registry.context import Registry
from registry.errors import Unavailable
from registry.settings import Settings
from registry.tenants import Principal

URLS = ["http://one", "http://two", "http://three"]
Answer = Callable[[httpx.Request], httpx.Response]


class Body(httpx.AsyncByteStream):
    """A body that remembers whether it was closed, and may break off."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.is_closed = False
        self._breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"
        if self._breaks:
            raise httpx.ReadError("the plug was pulled")

    async def aclose(self) -> None:
        self.is_closed = True


class Servers(httpx.AsyncBaseTransport):
    """Answers in turn with what it is given; an exception is raised, and None is never answered."""

    def __init__(self, *answers: tuple[int, Body] | Exception | None) -> None:
        self.hanging = asyncio.Event()
        self._answers = list(answers)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._answers.pop(0)
        if answer is None:
            self.hanging.set()
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        status, body = answer
        return httpx.Response(status, stream=body, headers={"content-type": "application/zip", "content-length": "9"})


def gateway(servers: Servers) -> InferenceGateway:
    return InferenceGateway(URLS, "token", httpx.AsyncClient(transport=servers))


async def ask(servers: Servers) -> httpx.Response:
    return await gateway(servers).ask("/generate", {}, "key", "req-1")


def test_a_refusal_is_closed_when_the_next_server_takes_too_long() -> None:
    async def run() -> None:
        busy = Body()
        with pytest.raises(Unavailable, match="too long"):
            await ask(Servers((503, busy), httpx.ReadTimeout("slow")))
        assert busy.is_closed

    asyncio.run(run())


def test_a_refusal_is_closed_when_the_client_leaves_meanwhile() -> None:
    async def run() -> None:
        busy = Body()
        servers = Servers((429, busy), None)
        asking = asyncio.create_task(ask(servers))
        await servers.hanging.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert busy.is_closed

    asyncio.run(run())


def test_of_several_refusals_only_the_last_stays_open() -> None:
    async def run() -> None:
        bodies = [Body() for _ in URLS]
        response = await ask(Servers(*((503, body) for body in bodies)))
        assert [body.is_closed for body in bodies] == [True, True, False]
        assert await response.aread() == b"{}"

    asyncio.run(run())


def test_refusals_are_closed_when_a_server_answers() -> None:
    async def run() -> None:
        busy, good = Body(), Body()
        response = await ask(Servers((503, busy), (200, good)))
        assert (response.status_code, busy.is_closed, good.is_closed) == (200, True, False)

    asyncio.run(run())


def test_a_download_that_breaks_off_is_closed() -> None:
    async def run() -> None:
        body = Body(breaks=True)

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            return

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "asgi": {"spec_version": "2.3"}}
        key = Revocations(Registry.open(Settings()), lambda: None).watch(Principal("t", "n", "k", frozenset()))
        answer = await pass_on(Request(scope, receive), lambda: ask(Servers((200, body))), key)
        with pytest.raises(httpx.ReadError):
            await answer(scope, receive, send)
        assert body.is_closed

    asyncio.run(run())
