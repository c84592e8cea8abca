"""Bodies of requests, with bounds on their size, on the memory of all that are there at once, and on their time."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRACE_SECONDS = 20.0
SLOWEST_RATE = 8 * 1024
"""Bytes a second: a client may be late by `GRACE_SECONDS`, and no slower than this over a longer time."""
_PATIENCE_SECONDS = 5.0
_MOST_WAITING = 64


@dataclass(frozen=True)
class Allowance:
    """What a request's body may be."""

    bytes: int
    in_memory: int
    """How much of it is in memory at once: less than all where it goes on to a disk."""


class Memory:
    """So many bytes for all bodies together. No owner takes more of them than are left to others."""

    def __init__(self, bytes: int) -> None:
        self._total = self._free = bytes
        self._taken: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._changed = asyncio.Event()

    async def take(self, owner: str, bytes: int) -> None:
        """Waits a moment for room. Raises HTTPException 429 where the owner has too much already, else 503."""
        bytes = min(bytes, self._total // 2)
        if not self._fits(owner, bytes):
            await self._wait(owner, bytes)
        self._free -= bytes
        self._taken[owner] += bytes

    def give_back(self, owner: str, bytes: int) -> None:
        """What `take` was asked for."""
        bytes = min(bytes, self._total // 2)
        self._free += bytes
        self._taken -= Counter({owner: bytes})
        self._changed.set()
        self._changed = asyncio.Event()

    def _fits(self, owner: str, bytes: int) -> bool:
        return self._taken[owner] + bytes <= self._free - bytes or (not self._taken[owner] and bytes <= self._free)

    async def _wait(self, owner: str, bytes: int) -> None:
        if self._waiting[owner] >= _MOST_WAITING:
            raise self._refusal(owner)
        self._waiting[owner] += 1
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not self._fits(owner, bytes):
                    await self._changed.wait()
        except TimeoutError:
            raise self._refusal(owner) from None
        finally:
            self._waiting -= Counter({owner: 1})

    def _refusal(self, owner: str) -> HTTPException:
        status, whose = (429, "of yours ") if self._taken[owner] else (503, "")
        message = f"the bodies {whose}that are being read fill the memory for them"
        return HTTPException(status, message, {"retry-after": "1"})


class BodiesMiddleware:
    """Reads no more of a body than is allowed, no slower than is sensible, and only while there is memory for it.

    What it raises is an HTTPException, the one kind that FastAPI lets through while it reads a body: 413, 408, 429 and
    503.
    """

    def __init__(
        self, app: ASGIApp, *, memory: int, allowance: Callable[[Scope], Allowance], owner: Callable[[Scope], str]
    ) -> None:
        self.app = app
        self._bytes = memory
        self._memory: Memory | None = None
        self._allowance = allowance
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        declared = _declared(scope) if scope["type"] == "http" else 0
        if declared == 0:
            await self.app(scope, receive, send)
            return
        self._memory = self._memory or Memory(self._bytes)  # made where the event loop runs
        body = _Body(self._memory, self._owner(scope), self._allowance(scope), declared, receive)

        async def note(message: Message) -> None:
            body.is_wanted = False
            await send(message)

        try:
            await self.app(scope, body.receive, note)
        finally:
            body.forget()


class _Body:
    """One body on its way."""

    def __init__(
        self, memory: Memory, owner: str, allowance: Allowance, declared: int | None, receive: Receive
    ) -> None:
        self._memory = memory
        self._owner = owner
        self._allowance = allowance
        self._declared = declared
        self._receive = receive
        self._held = 0
        self._received = 0
        self._patience = GRACE_SECONDS
        self._is_whole = False
        self.is_wanted = True
        """Until the answer begins: then whoever receives only waits for the client to leave."""

    def forget(self) -> None:
        """Its memory is free again."""
        if self._held:
            self._memory.give_back(self._owner, self._held)
            self._held = 0

    async def receive(self) -> Message:
        """The next piece. Raises HTTPException."""
        if self._is_whole or not self.is_wanted:
            return await self._receive()
        if self._declared is not None and self._declared > self._allowance.bytes:
            raise self._too_large()
        if not self._held:
            held = min(self._allowance.in_memory, self._allowance.bytes if self._declared is None else self._declared)
            await self._memory.take(self._owner, held)
            self._held = held
        message = await self._next()
        self._received += len(message.get("body", b""))
        if self._received > self._allowance.bytes:
            raise self._too_large()
        self._is_whole = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                message = await self._receive()
        except TimeoutError:
            if not self.is_wanted:
                return await self._receive()
            raise HTTPException(
                408, f"after {self._received} bytes the rest of the body took too long", {"connection": "close"}
            ) from None
        # What came buys time, but never more than there was at the beginning: who has sent much may not stall for long.
        earned = len(message.get("body", b"")) / SLOWEST_RATE
        self._patience = min(GRACE_SECONDS, self._patience - (time.monotonic() - began) + earned)
        return message

    def _too_large(self) -> HTTPException:
        # The connection stays open, and what is still coming is thrown away: see `osora_common.http_protocol`.
        return HTTPException(413, f"the body is over {self._allowance.bytes} bytes")


def _declared(scope: Scope) -> int | None:
    """The length of a request's body, 0 if it has none; None where it does not say."""
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "0")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
