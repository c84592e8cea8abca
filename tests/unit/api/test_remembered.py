"""What is remembered for a moment, and forgotten by another thread in the middle of a reading."""

import asyncio

from api.limits.remembered import Remembered


def test_what_is_forgotten_before_its_reading_has_begun_is_read_all_the_same() -> None:
    read = iter([1, 2])

    async def reading() -> int:
        return next(read)

    async def scenario() -> None:
        remembered: Remembered[int] = Remembered(60)
        asking = asyncio.create_task(remembered.get("key", reading))
        await asyncio.sleep(0)
        remembered.forget()
        assert await asking == 1
        assert await remembered.get("key", reading) == 2
        assert await remembered.get("key", reading) == 2

    asyncio.run(scenario())
