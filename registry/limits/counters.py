"""Where rates and places are counted: in a Redis that all processes share, or in this process's memory.

A rate is a sliding window of a minute, by the `limits` library: two counters, one round trip. What is given back leaves
the counter that it went into: taken from a later one it would make room for more than the limit, again and again.

A place is held while something goes on. In Redis it is a lease, which its process renews, so that a process that dies
gives its places back.

While Redis is away, each process counts by itself: nobody is refused, or kept waiting, because we cannot count.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from registry.limits.window import SECONDS, Window

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PREFIX = "osora:limits"
_ANSWER_SECONDS = 0.5
_OUTAGE_SECONDS = 5
_LEASE_SECONDS = 60
_UNLIMITED = 2**53
_OUTAGES = (StorageError, RedisError, OSError, TimeoutError)

# KEYS: the places. ARGV: how many there may be, seconds of a lease, whose it is.
_TAKE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""
# KEYS: the counters of `limits`, the earlier one first. ARGV: milliseconds of a window, those since it was counted, how
# much.
_GIVE_BACK = """
local window, ago = tonumber(ARGV[1]), tonumber(ARGV[2])
local left = redis.call('PTTL', KEYS[2])
if left <= 0 then return end
local began = 2 * window - left
local key = KEYS[2]
if ago > began then
    if left < window or ago > began + window then return end
    key = KEYS[1]
end
local counted = tonumber(redis.call('GET', key)) or 0
local given = math.min(tonumber(ARGV[3]), counted)
if given > 0 then redis.call('DECRBY', key, string.format('%.0f', given)) end
"""
# KEYS: the places. ARGV: seconds of a lease, then all whose it is to be renewed.
_RENEW = """
local until_ = tonumber(redis.call('TIME')[1]) + tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], until_, ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class _Backend(Protocol):
    async def hit(self, key: str, limit: int, cost: int) -> bool: ...

    async def give_back(self, key: str, amount: int, seconds: float) -> None: ...

    async def window(self, key: str) -> Window: ...

    async def take(self, key: str, limit: int, holder: str) -> bool: ...

    async def free(self, key: str, holder: str) -> None: ...


class _Memory:
    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._places: defaultdict[str, set[str]] = defaultdict(set)

    async def hit(self, key: str, limit: int, cost: int) -> bool:
        return await self._storage.acquire_sliding_window_entry(key, limit, SECONDS, cost)

    async def give_back(self, key: str, amount: int, seconds: float) -> None:
        _, counter = self._storage.sliding_window_keys(key, SECONDS, time.time() - seconds)
        if counted := await self._storage.get(counter):
            await self._storage.decr(counter, min(amount, counted))

    async def window(self, key: str) -> Window:
        return Window(*await self._storage.get_sliding_window(key, SECONDS))

    async def take(self, key: str, limit: int, holder: str) -> bool:
        if len(self._places.get(key, ())) >= limit:
            return False
        self._places[key].add(holder)
        return True

    async def free(self, key: str, holder: str) -> None:
        held = self._places.get(key, set())
        held.discard(holder)
        if not held:
            self._places.pop(key, None)


class _Redis:
    def __init__(self, url: str) -> None:
        # A wait is bounded three times: for a connection of the pool, for the network, for the answer.
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=32,
            timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = Redis(connection_pool=self._pool)
        self._storage = RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=_PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]  # its options are annotated too narrowly
        )
        self._take = self._client.register_script(_TAKE)
        self._renew = self._client.register_script(_RENEW)
        self._give_back = self._client.register_script(_GIVE_BACK)

    async def hit(self, key: str, limit: int, cost: int) -> bool:
        return await self._storage.acquire_sliding_window_entry(key, limit, SECONDS, cost)

    async def give_back(self, key: str, amount: int, seconds: float) -> None:
        current = f"{_PREFIX}:{{{key}}}"  # as `RedisStorage` names them
        times = [1000 * SECONDS, round(1000 * seconds)]
        await self._give_back([f"{current}/-1", current], [*times, amount])

    async def window(self, key: str) -> Window:
        return Window(*await self._storage.get_sliding_window(key, SECONDS))

    async def take(self, key: str, limit: int, holder: str) -> bool:
        return bool(await self._take([f"{_PREFIX}/{key}"], [limit, _LEASE_SECONDS, holder]))

    async def free(self, key: str, holder: str) -> None:
        await self._client.zrem(f"{_PREFIX}/{key}", holder)

    async def renew(self, key: str, holders: list[str]) -> None:
        await self._renew([f"{_PREFIX}/{key}"], [_LEASE_SECONDS, *holders])

    async def close(self) -> None:
        await self._client.aclose()
        await self._pool.disconnect()


class Counters:
    """Rates and places, by key. Nothing here fails or waits for long."""

    def __init__(self, redis_url: str | None) -> None:
        self._memory = _Memory()
        self._redis = None if redis_url is None else _Redis(redis_url)
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._down_until = 0.0
        self._is_down = False

    @classmethod
    @asynccontextmanager
    async def open(cls, redis_url: str | None) -> AsyncIterator["Counters"]:
        """Counters that renew what is held; without a URL they are this process's own."""
        counters = cls(redis_url)
        renewing = asyncio.create_task(counters._keep_renewing())
        try:
            yield counters
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
            if counters._redis is not None:
                await counters._redis.close()

    async def hit(self, key: str, limit: int, cost: int = 1) -> bool:
        """Counts `cost` where that fits into `limit` a minute; says whether it did."""
        return await self._ask(lambda backend: backend.hit(key, limit, cost))

    async def settle(self, key: str, counted: int, used: int, seconds: float) -> None:
        """Corrects what was counted `seconds` ago to what was used: as much of it as still counts."""
        if used > counted:
            await self.hit(key, _UNLIMITED, used - counted)
        elif used < counted:
            await self._ask(lambda backend: backend.give_back(key, counted - used, seconds))

    async def window(self, key: str) -> Window:
        """What is counted."""
        return await self._ask(lambda backend: backend.window(key))

    async def take(self, key: str, limit: int, holder: str) -> bool:
        """Takes one of `limit` places, to be freed; says whether there was one."""
        taken = await self._ask(lambda backend: backend.take(key, limit, holder))
        if taken:
            self._held[key].add(holder)
        return taken

    async def free(self, key: str, holder: str) -> None:
        """Gives a place back, wherever it was taken."""
        self._held[key].discard(holder)
        if not self._held[key]:
            del self._held[key]
        await self._memory.free(key, holder)
        await self._ask(lambda backend: backend.free(key, holder))

    async def _ask(self, question: Callable[[_Backend], Awaitable[T]]) -> T:
        """Of Redis, if it is there: during an outage one call in five seconds tries."""
        if self._redis is None or time.monotonic() < self._down_until:
            return await question(self._memory)
        if self._is_down:
            self._down_until = time.monotonic() + _OUTAGE_SECONDS  # the others do not try meanwhile
        try:
            answer = await question(self._redis)
        except _OUTAGES as error:
            self._down_until = time.monotonic() + _OUTAGE_SECONDS
            if not self._is_down:
                self._is_down = True
                logger.warning("limits: Redis is away (%s); each process counts by itself", type(error).__name__)
            return await question(self._memory)
        if self._is_down:
            self._is_down, self._down_until = False, 0.0
            logger.warning("limits: Redis is back; all processes count together")
        return answer

    async def _keep_renewing(self) -> None:
        if self._redis is None:
            return
        while True:
            await asyncio.sleep(_LEASE_SECONDS / 3)
            await self._renew(self._redis)

    async def _renew(self, redis: _Redis) -> None:
        for key in list(self._held):
            if holders := self._held.get(key, set()).copy():
                with contextlib.suppress(*_OUTAGES):
                    await redis.renew(key, list(holders))
                    for holder in holders - self._held.get(key, set()):  # freed meanwhile, and perhaps there again
                        await redis.free(key, holder)
