"""Limits as requests meet them: rates, places and budgets, counted before anything is done."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import anyio
from anyio import CapacityLimiter, to_thread

from registry.context import Registry
from registry.errors import Standing
from registry.limits import overrides
from registry.limits.counters import Counters
from registry.limits.values import LimitName, Owner
from registry.limits.wrong_keys import WrongKeys
from registry.settings import Settings
from registry.tenants import Principal

_REMEMBERED_SECONDS = 2.0
"""How long a change takes until it holds in every process."""
_MOST_REMEMBERED = 10_000
_BUSY_SECONDS = 1.0
_NETWORK = ("redis://", "rediss://")


class Reserved:
    """Tokens that a generation may use, until it is known how many it has used."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.used: int | None = None
        """Set once it is known; else all of them count as used."""
        self.began = time.monotonic()


class Limits:
    """Keeps tenants and keys within their limits. Every method raises `RateLimited`."""

    def __init__(self, registry: Registry, counters: Counters) -> None:
        self.wrong_keys = WrongKeys()
        self._registry = registry
        self._counters = counters
        self._threads = CapacityLimiter(4)  # of its own: others hold theirs for long
        self._owners: OrderedDict[str, tuple[float, tuple[Owner, ...]]] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def open(cls, registry: Registry) -> AsyncIterator["Limits"]:
        """Limits that count in the broker's Redis, if that is one of the network, else in this process."""
        async with Counters.open(redis_url(registry.settings)) as counters:
            yield cls(registry, counters)

    async def admit(self, principal: Principal) -> None:
        """Counts a request."""
        for owner in await self.owners(principal):
            limit = owner.limits.requests_per_minute
            key = f"requests/{owner.id}"
            if limit is not None and not await self._counters.hit(key, limit):
                window = await self._counters.window(key)
                raise owner.exceeded(
                    "requests_per_minute",
                    free_in=window.free_in(limit, 1),
                    standing=window.standing("requests", limit),
                )

    @asynccontextmanager
    async def generation(self, principal: Principal, tokens: int) -> AsyncIterator[Reserved]:
        """A place for a generation, and so many tokens of the rate, as many as it can use at most."""
        owners = await self.owners(principal)
        async with AsyncExitStack() as held:
            await self._place(held, owners, "concurrent_generations")
            reserved = Reserved(tokens)
            await self._reserve(held, owners, reserved)
            yield reserved

    @asynccontextmanager
    async def upload(self, principal: Principal) -> AsyncIterator[None]:
        """A place for an upload."""
        async with AsyncExitStack() as held:
            await self._place(held, await self.owners(principal), "concurrent_uploads")
            yield

    async def standings(self, principal: Principal) -> list[Standing]:
        """How much is left of the rates; where a key has limits as well, whatever is less."""
        found: dict[str, Standing] = {}
        for owner in await self.owners(principal):
            for of, limit in (
                ("requests", owner.limits.requests_per_minute),
                ("tokens", owner.limits.tokens_per_minute),
            ):
                if limit is None:
                    continue
                standing = (await self._counters.window(f"{of}/{owner.id}")).standing(of, limit)  # type: ignore[arg-type]
                if of not in found or standing.remaining < found[of].remaining:
                    found[of] = standing
        return list(found.values())

    async def owners(self, principal: Principal) -> tuple[Owner, ...]:
        """Whose limits hold for a request, two seconds old at most."""
        known = self._owners.get(principal.key_id)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        owners = await to_thread.run_sync(self._read, principal, limiter=self._threads)
        self._owners[principal.key_id] = (time.monotonic() + _REMEMBERED_SECONDS, owners)
        self._owners.move_to_end(principal.key_id)
        if len(self._owners) > _MOST_REMEMBERED:
            self._owners.popitem(last=False)
        return owners

    def changed(self) -> None:
        """Limits were set in this process: here they hold at once."""
        self._owners.clear()

    def _read(self, principal: Principal) -> tuple[Owner, ...]:
        with self._registry.reading() as session:
            return overrides.of_principal(session, self._registry.settings, principal)

    async def _place(self, held: AsyncExitStack, owners: tuple[Owner, ...], name: LimitName) -> None:
        holder = uuid4().hex
        for owner in owners:
            limit: int | None = getattr(owner.limits, name)
            if limit is None:
                continue
            key = f"{name}/{owner.id}"
            if not await self._counters.take(key, limit, holder):
                raise owner.exceeded(name, free_in=_BUSY_SECONDS, next_action="wait until one of them has ended")
            held.push_async_callback(_shielded, lambda key=key: self._counters.free(key, holder))

    async def _reserve(self, held: AsyncExitStack, owners: tuple[Owner, ...], reserved: Reserved) -> None:
        for owner in owners:
            limit = owner.limits.tokens_per_minute
            if limit is None:
                continue
            key = f"tokens/{owner.id}"
            if not await self._counters.hit(key, limit, reserved.tokens):
                window = await self._counters.window(key)
                fits = reserved.tokens <= limit
                raise owner.exceeded(
                    "tokens_per_minute",
                    free_in=window.free_in(limit, reserved.tokens) if fits else None,
                    standing=window.standing("tokens", limit),
                    next_action=None if fits else _too_much(reserved.tokens, limit),
                )
            held.push_async_callback(_shielded, lambda key=key: self._settle(key, reserved))

    async def _settle(self, key: str, reserved: Reserved) -> None:
        used = reserved.tokens if reserved.used is None else reserved.used
        await self._counters.settle(key, reserved.tokens, used, time.monotonic() - reserved.began)


def redis_url(settings: Settings) -> str | None:
    """The broker, if it is a Redis that processes of several machines share."""
    return settings.broker_url if settings.broker_url.startswith(_NETWORK) else None


def _too_much(tokens: int, limit: int) -> str:
    return f"ask for less at once: this may use {tokens} tokens, over all {limit} of a minute"


async def _shielded(give_back: Callable[[], Awaitable[None]]) -> None:
    """What was taken is given back, also by a request that is being cancelled."""
    with anyio.CancelScope(shield=True):
        await give_back()
