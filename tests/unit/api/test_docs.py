"""The documents that need no key, and who may read them at once."""

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Scope

from api import docs


def test_a_few_of_an_address_read_at_once_and_others_do_not_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "_READERS_OF_ADDRESS", 2)

    def scope(address: str) -> Scope:
        return {"type": "http", "client": (address, 1)}

    async def receive() -> Message:
        raise AssertionError

    async def scenario() -> None:
        reads, sent = asyncio.Event(), list[Message]()

        async def stall(message: Message) -> None:
            await reads.wait()

        async def read(message: Message) -> None:
            sent.append(message)

        answer = docs._Piecewise(b"x" * 100_000, media_type="text/plain")
        slow = [asyncio.create_task(answer(scope("10.0.0.1"), receive, stall)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(HTTPException) as refused:
            await answer(scope("10.0.0.1"), receive, read)
        assert refused.value.status_code == 429
        assert refused.value.headers is not None
        assert refused.value.headers["connection"] == "close"
        assert sent == []
        await answer(scope("10.0.0.2"), receive, read)
        assert sum(len(message.get("body", b"")) for message in sent) == 100_000
        reads.set()
        await asyncio.gather(*slow)
        assert not answer.readers

    asyncio.run(scenario())
