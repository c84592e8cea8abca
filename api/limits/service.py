"""Limits as requests meet them: rates, places and budgets, counted before anything is done."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Literal
from uuid import uuid4

import anyio
from anyio import CapacityLimiter, to_thread

from api.limits.remembered import Remembered
from registry.context import Registry
from registry.errors import RateLimited, Standing
from registry.limits import budgets, overrides, quotas
from registry.limits.counters import Counters
from registry.limits.values import LimitName, Owner
from registry.settings import Settings
from registry.tenants import Principal

_REMEMBERED_SECONDS = 2.0
"""How long a change takes until it holds in every process."""
_KNOWN_SECONDS = 60.0
_BUSY_SECONDS = 1.0
_NETWORK = ("redis://", "rediss://")
_Rate = Literal["requests", "tokens"]
_RATES: dict[_Rate, LimitName] = {"requests": "requests_per_minute", "tokens": "tokens_per_minute"}


class Reserved:
    """Tokens that a generation may use, until it is known how many it has used."""

    def __init__(self, tokens: int, owners: tuple[Owner, ...]) -> None:
        self.owners = owners
        self.tokens = tokens
        self.used = tokens
        self.began = time.monotonic()


class Limits:
    """Keeps tenants and keys within their limits. What it refuses is a `RateLimited`."""

    def __init__(self, registry: Registry, counters: Counters) -> None:
        self.longest: Remembered[int] = Remembered(_KNOWN_SECONDS)
        """Of each base, the tokens that it reads and writes at most: asking a server that hangs takes its time."""
        self._registry = registry
        self._counters = counters
        self._threads = CapacityLimiter(4)  # of its own: others hold theirs for long
        self._owners: Remembered[tuple[Owner, ...]] = Remembered(_REMEMBERED_SECONDS)
        self._spent: Remembered[int] = Remembered(_REMEMBERED_SECONDS)

    @classmethod
    @asynccontextmanager
    async def open(cls, registry: Registry) -> AsyncIterator["Limits"]:
        """Limits that count in the broker's Redis, if that is one of the network, else in this process."""
        async with Counters.open(redis_url(registry.settings)) as counters:
            yield cls(registry, counters)

    async def admit(self, principal: Principal) -> None:
        """Counts a request."""
        for owner in _narrowest_first(await self._owners_of(principal)):
            await self._hit(owner, "requests", 1)

    @asynccontextmanager
    async def generation(self, principal: Principal, tokens: int) -> AsyncIterator[Reserved]:
        """A place for a generation, and the tokens that it can use at most, where the month's budget has any left."""
        owners = await self._owners_of(principal)
        await self._check_budgets(owners)
        reserved = Reserved(tokens, owners)
        async with AsyncExitStack() as held:
            await self._place(held, owners, "concurrent_generations")
            for owner in _narrowest_first(owners):
                try:
                    is_counted = await self._hit(owner, "tokens", tokens)
                except RateLimited:
                    reserved.used = 0  # what was counted for another owner is given back
                    raise
                if is_counted:
                    held.push_async_callback(_shielded, partial(self._settle, owner, reserved))
            yield reserved

    @asynccontextmanager
    async def upload(self, principal: Principal) -> AsyncIterator[int | None]:
        """A place for an upload, and how many bytes the tenant may still store; None is no limit."""
        async with self.completion(principal):
            yield await to_thread.run_sync(self._read_room, principal, limiter=self._threads)

    @asynccontextmanager
    async def completion(self, principal: Principal) -> AsyncIterator[None]:
        """A place for what was uploaded in parts: to be read and checked, it takes no room that it has not already."""
        async with AsyncExitStack() as held:
            await self._place(held, await self._owners_of(principal), "concurrent_uploads")
            yield

    async def standings(self, owners: tuple[Owner, ...]) -> list[Standing]:
        """How much is left of the rates; where a key has limits as well, of whichever has less.

        It asks no database: the answer that it is said with has been generated, and must not fail any more.
        """
        found: dict[_Rate, Standing] = {}
        for owner in owners:
            for rate, name in _RATES.items():
                limit: int | None = getattr(owner.limits, name)
                if limit is None:
                    continue
                standing = (await self._counters.window(f"{rate}/{owner.id}")).standing(rate, limit)
                if rate not in found or standing.remaining < found[rate].remaining:
                    found[rate] = standing
        return list(found.values())

    def changed(self) -> None:
        """Limits were set in this process: here they hold at once."""
        self._owners.forget()
        self._spent.forget()

    async def _owners_of(self, principal: Principal) -> tuple[Owner, ...]:
        read = partial(to_thread.run_sync, self._read_owners, principal, limiter=self._threads)
        return await self._owners.get(principal.key_id, read)

    def _read_owners(self, principal: Principal) -> tuple[Owner, ...]:
        with self._registry.reading() as session:
            return overrides.of_principal(session, principal)

    def _read_room(self, principal: Principal) -> int | None:
        with self._registry.reading() as session:
            return quotas.room(session, principal.tenant_id)

    async def _check_budgets(self, owners: tuple[Owner, ...]) -> None:
        for owner in owners:
            if owner.limits.tokens_per_month is None:
                continue
            read = partial(to_thread.run_sync, self._read_spent, owner, limiter=self._threads)
            budgets.check_generation(owner, await self._spent.get(owner.id, read))

    def _read_spent(self, owner: Owner) -> int:
        with self._registry.reading() as session:
            return budgets.tokens_of_month(session, owner)

    async def _hit(self, owner: Owner, rate: _Rate, cost: int) -> bool:
        """Counts against a rate; says whether there is a limit to it. Raises `RateLimited`."""
        name = _RATES[rate]
        limit: int | None = getattr(owner.limits, name)
        if limit is None:
            return False
        key = f"{rate}/{owner.id}"
        if await self._counters.hit(key, limit, cost):
            return True
        window = await self._counters.window(key)
        if cost > limit:
            raise owner.exceeded(
                name,
                when=f"this request may use {cost}, more than all of them",
                retry_after=None,
                next_action="ask for less at once, such as fewer tokens or a shorter prompt",
                standing=window.standing(rate, limit),
            )
        free_in = max(window.free_in(limit, cost), 0.1)
        raise owner.exceeded(
            name,
            when=f"there is room for this request again in {free_in:.1f} s",
            retry_after=free_in,
            next_action="wait so long, or send fewer at once",
            standing=window.standing(rate, limit),
        )

    async def _place(self, held: AsyncExitStack, owners: tuple[Owner, ...], name: LimitName) -> None:
        holder = uuid4().hex
        for owner in owners:
            limit: int | None = getattr(owner.limits, name)
            if limit is None:
                continue
            key = f"{name}/{owner.id}"
            if not await self._counters.take(key, limit, holder):
                raise owner.exceeded(
                    name,
                    when="there is room again as soon as one of them ends",
                    retry_after=_BUSY_SECONDS,
                    next_action="send fewer at once",
                )
            held.push_async_callback(_shielded, partial(self._counters.free, key, holder))

    async def _settle(self, owner: Owner, reserved: Reserved) -> None:
        seconds = time.monotonic() - reserved.began
        await self._counters.settle(f"tokens/{owner.id}", reserved.tokens, reserved.used, seconds)


def redis_url(settings: Settings) -> str | None:
    """The broker, if it is a Redis of the network, which processes share."""
    return settings.broker_url if settings.broker_url.startswith(_NETWORK) else None


def _narrowest_first(owners: tuple[Owner, ...]) -> Iterator[Owner]:
    """A key before its tenant: what the key may not do takes nothing from the tenant's other keys."""
    return reversed(owners)


async def _shielded(give_back: Callable[[], Awaitable[None]]) -> None:
    """What was taken is given back, also by a request that is being cancelled."""
    with anyio.CancelScope(shield=True):
        await give_back()
