"""The engine's thread: what is asked of it when it is no more."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from inference.errors import ServerError
from inference.loop import EngineLoop
from osora_core.errors import UserError
from osora_core.inference import AdapterRow, InferenceEngine
from osora_core.runtime import Runtime


def test_an_examination_is_answered_while_the_engine_lives_and_refused_when_it_ends(served_runtime: Runtime) -> None:
    row = AdapterRow("a", torch.zeros(served_runtime.basis.row_length), 8)
    ids = torch.tensor([[7], [8]])

    async def scenario() -> None:
        loop = EngineLoop(InferenceEngine(served_runtime, rows=1), queue_limit=1, on_death=lambda: None)
        with ThreadPoolExecutor(2) as pool:

            def examine(length: int) -> Future[torch.Tensor]:
                return pool.submit(loop.examine, row, [5] * length, ids)

            answer = await asyncio.wrap_future(examine(2))
            assert answer.shape == ids.shape
            assert (answer < 0).all()
            with pytest.raises(UserError, match="at most"):
                await asyncio.wrap_future(examine(10**6))
            # One that is still waiting for its turn when the engine ends is refused, and so is every later one.
            reached, release = threading.Event(), threading.Event()

            def hold() -> None:
                reached.set()
                assert release.wait(10)

            loop._command(hold)
            await asyncio.to_thread(reached.wait, 10)
            waiting = examine(2)
            while not loop._commands:
                await asyncio.sleep(0)
            loop._stopping = True
            release.set()
            loop.stop()
            for refused in (waiting, examine(2)):
                with pytest.raises(ServerError, match="has stopped"):
                    await asyncio.wrap_future(refused)

    asyncio.run(scenario())
