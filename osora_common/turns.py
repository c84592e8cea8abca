"""Work that would hold up the event loop, on threads of its own and in turns."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

Result = TypeVar("Result")

_THREADS = 4


class Turns:
    """One piece of work a tenant at a time, so that whoever sends many large requests waits behind itself."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "turns")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, tenant: str, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises. Work that has begun goes on if nobody waits for it any more, and the
        tenant's next piece waits for its end all the same."""
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        await lock.acquire()
        loop = asyncio.get_running_loop()
        job = self._threads.submit(work)
        job.add_done_callback(lambda _: _release(loop, lock))
        return await asyncio.wrap_future(job)

    def close(self) -> None:
        """Begin no work any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _release(loop: asyncio.AbstractEventLoop, lock: asyncio.Lock) -> None:
    try:
        loop.call_soon_threadsafe(lock.release)
    except RuntimeError:
        # The event loop is closed, and nobody waits for a turn any more.
        return
