"""Who guesses keys gets slower, who has one does not, and what is remembered of either is bounded."""

import asyncio

import pytest

from registry.errors import RateLimited, Unauthorized
from registry.limits import wrong_keys
from registry.limits.wrong_keys import MOST_ADDRESSES, WRONG_A_MINUTE, WrongKeys


async def guess(wrong: WrongKeys, address: str, key: str = "osk-wrong") -> None:
    async with wrong.trying(address, key):
        raise Unauthorized("unknown")


async def use(wrong: WrongKeys, address: str, key: str) -> None:
    async with wrong.trying(address, key):
        await asyncio.sleep(0)


async def exhaust(wrong: WrongKeys, address: str) -> None:
    for _ in range(WRONG_A_MINUTE):
        with pytest.raises(Unauthorized):
            await guess(wrong, address)


def test_an_address_may_be_wrong_so_often() -> None:
    async def scenario() -> None:
        wrong = WrongKeys()
        await exhaust(wrong, "192.0.2.1")
        with pytest.raises(RateLimited) as refused:
            await guess(wrong, "192.0.2.1")
        assert refused.value.code == "wrong_keys"
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 60
        with pytest.raises(Unauthorized):
            await guess(wrong, "192.0.2.2")

    asyncio.run(scenario())


def test_one_ipv6_customer_is_one_address() -> None:
    async def scenario() -> None:
        wrong = WrongKeys()
        for host in range(WRONG_A_MINUTE):
            with pytest.raises(Unauthorized):
                await guess(wrong, f"2001:db8::{host:x}")
        with pytest.raises(RateLimited):
            await guess(wrong, "2001:db8::ffff")
        with pytest.raises(Unauthorized):
            await guess(wrong, "2001:db8:0:1::1")

    asyncio.run(scenario())


def test_good_keys_behind_the_same_address_are_let_through() -> None:
    async def scenario() -> None:
        wrong = WrongKeys()
        await use(wrong, "192.0.2.1", "osk-known")
        await exhaust(wrong, "192.0.2.1")
        await use(wrong, "192.0.2.1", "osk-known")
        await use(wrong, "192.0.2.1", "osk-new")

        # While the lookups of guesses take their time, one after the other, the known key waits for none of them.
        may_end = asyncio.Event()

        async def slow_guess() -> None:
            async with wrong.trying("192.0.2.1", "osk-slow"):
                await may_end.wait()
                raise Unauthorized("unknown")

        guesses = [asyncio.create_task(slow_guess()) for _ in range(wrong_keys.MOST_WAITING)]
        await asyncio.sleep(0)
        await asyncio.wait_for(use(wrong, "192.0.2.1", "osk-known"), 30)
        with pytest.raises(RateLimited):  # not even looked up
            await use(wrong, "192.0.2.1", "osk-third")
        may_end.set()
        refused = await asyncio.gather(*guesses, return_exceptions=True)
        assert all(isinstance(error, RateLimited) for error in refused)

    asyncio.run(scenario())


def test_a_flood_of_addresses_is_not_remembered() -> None:
    async def scenario() -> None:
        wrong = WrongKeys()
        for number in range(MOST_ADDRESSES + 500):
            with pytest.raises(Unauthorized):
                await guess(wrong, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        assert len(wrong) == MOST_ADDRESSES

    asyncio.run(scenario())
