"""Writes down which keys were used, beside the requests."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from registry.context import Registry
from registry.outages import first_line

logger = logging.getLogger(__name__)

_WRITE_SECONDS = 5.0


@asynccontextmanager
async def writing_key_uses(registry: Registry) -> AsyncIterator[None]:
    """What `registry.key_uses` has gathered is written every few seconds, and at the exit."""
    stopping = asyncio.Event()
    thread = anyio.CapacityLimiter(1)

    async def write_now_and_then() -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _WRITE_SECONDS)
            try:
                await anyio.to_thread.run_sync(registry.key_uses.write, registry.sessions, limiter=thread)
            except Exception as error:
                logger.warning("the last uses of keys wait to be written: %s", first_line(error))

    writing = asyncio.create_task(write_now_and_then())
    try:
        yield
    finally:
        stopping.set()
        await writing
