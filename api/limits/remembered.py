"""What was read a moment ago, for a moment, so that not every request reads it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST = 10_000


class Remembered(Generic[T]):
    """Values by key, each so many seconds old at most; as many as fit, those that were read last."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._reading: dict[str, asyncio.Future[T]] = {}

    async def get(self, key: str, read: Callable[[], Awaitable[T]]) -> T:
        """The value, read if need be: by one of those who ask at the same time, for all of them."""
        known = self._values.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        values, readings = self._values, self._reading  # what is forgotten meanwhile stays so
        reading = readings.get(key)
        if reading is None:
            reading = readings[key] = asyncio.ensure_future(self._read(key, read, values, readings))
        return await asyncio.shield(reading)  # whoever asked first may be gone before the others have their answer

    def forget(self) -> None:
        """All of them are read again. Any thread may say so."""
        self._values = OrderedDict()
        self._reading = {}

    async def _read(
        self,
        key: str,
        read: Callable[[], Awaitable[T]],
        values: OrderedDict[str, tuple[float, T]],
        readings: dict[str, asyncio.Future[T]],
    ) -> T:
        until = time.monotonic() + self._seconds  # it may be as old as that before it is here
        try:
            value = await read()
        finally:
            del readings[key]
        values[key] = (until, value)
        values.move_to_end(key)
        if len(values) > _MOST:
            values.popitem(last=False)
        return value
