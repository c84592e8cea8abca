"""Wrong keys, counted by where they come from: guessing gets slow, and a good key behind the same address does not.

Each address may be wrong so often in a minute. After that its unknown keys are looked up one after the other, with
those of all such addresses, and are refused with 429 in place of 401; where too many wait for that already, at once.
A key that was good a moment ago is never held up. What is remembered is bounded, whatever comes.
"""

import asyncio
import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from registry.errors import RateLimited, Unauthorized

WRONG_A_MINUTE = 30
MOST_ADDRESSES = 10_000
_MOST_KEYS = 10_000
MOST_WAITING = 32
_SECONDS = 60.0


@dataclass
class _Wrong:
    count: int
    until: float


class WrongKeys:
    """Of one process; its lookups are on one event loop."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, _Wrong] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._lane = asyncio.Lock()
        self._waiting = 0

    def __len__(self) -> int:
        """How many addresses it remembers."""
        return len(self._wrong)

    @asynccontextmanager
    async def trying(self, address: str | None, key: str) -> AsyncIterator[bytes]:
        """Around the lookup of a key, which raises `Unauthorized` if it is wrong. Yields what stands for the key.

        Raises `RateLimited` in its place for an address that has been wrong too often.
        """
        network = _network(address)
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        left = self._seconds_left(network)
        if left is None or digest in self._good:
            async with self._counting(network, digest):
                yield digest
            return
        if self._waiting >= MOST_WAITING:
            raise _too_many(network, left)
        self._waiting += 1
        try:
            async with self._lane, self._counting(network, digest):
                yield digest
        except Unauthorized as error:
            raise _too_many(network, left) from error
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def _counting(self, network: str, digest: bytes) -> AsyncIterator[None]:
        try:
            yield
        except Unauthorized:
            self._good.pop(digest, None)
            self._count(network)
            raise
        self._good[digest] = None
        self._good.move_to_end(digest)
        if len(self._good) > _MOST_KEYS:
            self._good.popitem(last=False)

    def _seconds_left(self, network: str) -> float | None:
        """Until the address may be wrong again; None if it may be now."""
        wrong = self._wrong.get(network)
        left = 0.0 if wrong is None else wrong.until - time.monotonic()
        return left if wrong is not None and left > 0 and wrong.count >= WRONG_A_MINUTE else None

    def _count(self, network: str) -> None:
        now = time.monotonic()
        wrong = self._wrong.get(network)
        if wrong is None or wrong.until <= now:
            wrong = self._wrong[network] = _Wrong(0, now + _SECONDS)
        wrong.count += 1
        self._wrong.move_to_end(network)
        if len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)


def _network(address: str | None) -> str:
    """Who has one IPv6 address has all of its /64."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"  # a unix socket, say
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def _too_many(network: str, seconds: float) -> RateLimited:
    return RateLimited(
        f"too many wrong API keys have come from {network}: {WRONG_A_MINUTE} a minute may",
        code="wrong_keys",
        next_action="send `Authorization: Bearer osk-…` with a valid key",
        retry_after=seconds,
    )
