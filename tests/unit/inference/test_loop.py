"""The engine's thread: what is asked of it when it is no more."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.errors import ServerError
from inference.loop import EngineLoop
from osora_core.inference import InferenceEngine
from osora_core.runtime import Runtime


def test_a_call_is_answered_while_the_engine_lives_and_refused_when_it_ends(served_runtime: Runtime) -> None:
    async def scenario() -> None:
        loop = EngineLoop(InferenceEngine(served_runtime, rows=1), queue_limit=1, on_death=lambda: None)
        with ThreadPoolExecutor(2) as pool:
            assert await asyncio.wrap_future(pool.submit(loop.call, lambda: 7)) == 7
            with pytest.raises(ZeroDivisionError):
                await asyncio.wrap_future(pool.submit(loop.call, lambda: 1 // 0))
            # A call that is still waiting for its turn when the engine ends is refused, and so is every later one.
            reached, release = threading.Event(), threading.Event()

            def hold() -> None:
                reached.set()
                assert release.wait(10)

            busy = pool.submit(loop.call, hold)
            await asyncio.to_thread(reached.wait, 10)
            waiting = pool.submit(loop.call, lambda: 7)
            while len(loop._calls) < 2:
                await asyncio.sleep(0)
            loop._stopping = True
            release.set()
            await asyncio.wrap_future(busy)
            loop.stop()
            for refused in (waiting, pool.submit(loop.call, lambda: 7)):
                with pytest.raises(ServerError, match="has stopped"):
                    await asyncio.wrap_future(refused)

    asyncio.run(scenario())
