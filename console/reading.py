"""What a live page reads beside its stream of events."""

import asyncio
from collections.abc import Awaitable, Callable

from osora.errors import OsoraAPIError, OsoraError


class Reading:
    """One at a time: an older answer that comes late must not take a newer one's place."""

    def __init__(self, read: Callable[[], Awaitable[None]], lost: Callable[[OsoraError], None]) -> None:
        self._read, self._lost = read, lost
        self._turn = asyncio.Lock()

    async def now(self) -> None:
        """Read. Raises OsoraError."""
        async with self._turn:
            await self._read()

    async def patiently(self) -> bool:
        """Read; where the service cannot be reached, `lost` hears of it, and False says that it is worth another try: a
        page must not stand still for good because the service was started anew. Raises OsoraError for a refusal."""
        try:
            await self.now()
        except OsoraError as error:
            if isinstance(error, OsoraAPIError) and error.is_refusal:
                raise
            self._lost(error)
            return False
        return True
