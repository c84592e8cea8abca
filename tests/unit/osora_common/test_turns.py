"""Heavy work off the event loop: in turns for a tenant, side by side for several."""

import asyncio
import threading

import pytest

from osora_common.turns import Turns

PATIENCE = 60


class Work:
    """A piece of work that begins, waits to be let go, and ends."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return "done"


async def begun(work: Work) -> None:
    assert await asyncio.to_thread(work.begun.wait, PATIENCE)


def test_a_tenant_waits_behind_itself_and_nobody_else_does() -> None:
    async def scenario() -> None:
        turns = Turns()
        first, second, other = Work(), Work(), Work()
        mine = [asyncio.create_task(turns.run("flood", work)) for work in (first, second)]
        await begun(first)
        theirs = asyncio.create_task(turns.run("other", other))
        await begun(other)
        assert not second.begun.is_set()
        other.go.set()
        assert await theirs == "done"
        first.go.set()
        second.go.set()
        assert await asyncio.gather(*mine) == ["done", "done"]
        # A thread holds its piece of work, and so its tenant's turn, a moment longer than whoever waits for it.
        await asyncio.to_thread(turns._threads.shutdown)
        assert not turns._locks, "nothing is kept of a tenant that is gone"

    asyncio.run(scenario())


def test_who_leaves_frees_its_turn_only_when_its_work_has_ended() -> None:
    async def scenario() -> None:
        turns = Turns()
        left, next_one, never = Work(), Work(), Work()
        leaving = asyncio.create_task(turns.run("flood", left))
        await begun(left)
        impatient = asyncio.create_task(turns.run("flood", never))
        waiting = asyncio.create_task(turns.run("flood", next_one))
        await asyncio.sleep(0)
        for task in (leaving, impatient):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not next_one.begun.is_set()
        left.go.set()
        await begun(next_one)
        assert not never.begun.is_set()
        next_one.go.set()
        assert await waiting == "done"

    asyncio.run(scenario())


def test_an_error_is_the_callers_and_ends_the_turn() -> None:
    def fail() -> None:
        raise ValueError("mine")

    async def scenario() -> None:
        turns = Turns()
        for _ in range(2):
            with pytest.raises(ValueError, match="mine"):
                await turns.run("tenant", fail)

    asyncio.run(scenario())
