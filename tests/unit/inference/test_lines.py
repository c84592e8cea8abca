"""Lines for what takes long: turns, places, and what becomes of them when somebody leaves."""

import asyncio
from contextlib import suppress

import pytest

from inference.errors import ServerError
from inference.lines import Line


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Work:
    """Pieces of work of tenants that end when they are told to."""

    def __init__(self, line: Line) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Event()
        self._line = line

    async def do(self, tenant: str) -> None:
        with self._line.place(tenant):
            async with self._line.turn(tenant):
                self.begun.append(tenant)
                await self.go.wait()


def test_tenants_take_turns_within_their_places() -> None:
    async def flood() -> list[str]:
        work = Work(Line("exports", at_once=1, most_of_tenant=4))
        tasks = [asyncio.create_task(work.do(tenant)) for tenant in ["a"] * 4 + ["b"]]
        await settled()
        with pytest.raises(ServerError, match="4 exports of yours and 5 in all are being worked on or wait") as many:
            await work.do("a")
        assert many.value.status == 429
        assert work.begun == ["a"]
        work.go.set()
        await asyncio.gather(*tasks)
        return work.begun

    assert asyncio.run(flood()) == ["a", "b", "a", "a", "a"]


def test_whoever_leaves_gives_up_the_place() -> None:
    async def leave() -> list[str]:
        work = Work(Line("exports", at_once=1, most_of_tenant=2))
        first, second = (asyncio.create_task(work.do("a")) for _ in range(2))
        await settled()
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        third = asyncio.create_task(work.do("a"))
        await settled()
        first.cancel()  # and with it the turn
        await settled()
        begun = list(work.begun)
        work.go.set()
        await third
        return begun

    assert asyncio.run(leave()) == ["a", "a"]


def test_all_together_have_a_bound() -> None:
    async def flood() -> None:
        work = Work(Line("exports", at_once=2, most_of_tenant=4))
        tasks = [asyncio.create_task(work.do(str(tenant))) for tenant in range(64)]
        await settled()
        with pytest.raises(ServerError, match="0 exports of yours and 64 in all"):
            await work.do("another")
        assert work.begun == ["0", "1"]
        work.go.set()
        await asyncio.gather(*tasks)

    asyncio.run(flood())
