"""The engine's thread: what is asked of it when it is no more."""

import asyncio
import threading

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
        answer = await asyncio.wrap_future(loop.examine(row, [5, 5], ids))
        assert answer.shape == ids.shape
        assert (answer < 0).all()
        with pytest.raises(UserError, match="at most"):
            await asyncio.wrap_future(loop.examine(row, [5] * 10**6, ids))
        # One that is still waiting for its turn when the engine ends is refused, and so is every later one.
        reached, release = threading.Event(), threading.Event()

        def hold() -> None:
            reached.set()
            assert release.wait(60)

        loop._command(hold)
        assert await asyncio.to_thread(reached.wait, 60)
        waiting = loop.examine(row, [5, 5], ids)
        loop._stopping = True
        release.set()
        loop.stop()
        for refused in (waiting, loop.examine(row, [5, 5], ids)):
            with pytest.raises(ServerError, match="has stopped"):
                await asyncio.wrap_future(refused)

    asyncio.run(scenario())
