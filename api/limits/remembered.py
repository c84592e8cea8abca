"""What was read a moment ago, for a moment, so that not every request reads it."""

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

    async def get(self, key: str, read: Callable[[], Awaitable[T]]) -> T:
        """The value, read if need be."""
        known = self._values.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        values = self._values  # what is forgotten meanwhile stays so
        value = await read()
        values[key] = (time.monotonic() + self._seconds, value)
        values.move_to_end(key)
        if len(values) > _MOST:
            values.popitem(last=False)
        return value

    def forget(self) -> None:
        """All of them are read again. Any thread may say so."""
        self._values = OrderedDict()
