"""The documents that need no key, and how often an address may ask for them."""

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message

from api import docs


def test_who_asks_too_often_is_refused_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "_MOST_ASKED", 2)
    monkeypatch.setattr(docs, "_ASKED_SECONDS", 3600.0)  # over when the test says so
    monkeypatch.setattr(docs, "_ASKED", docs._Asked())
    answer = docs._Piecewise(b"x" * 100_000, media_type="text/plain")

    async def receive() -> Message:
        raise AssertionError

    async def bytes_for(address: str) -> int:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await answer({"type": "http", "client": (address, 1)}, receive, send)
        return sum(len(message.get("body", b"")) for message in sent)

    async def scenario() -> None:
        for _ in range(2):
            assert await bytes_for("10.0.0.1") == 100_000
        with pytest.raises(HTTPException) as refused:
            await bytes_for("10.0.0.1")
        assert refused.value.status_code == 429
        assert refused.value.headers is not None
        assert refused.value.headers["connection"] == "close"
        assert await bytes_for("10.0.0.2") == 100_000
        monkeypatch.setattr(docs._ASKED, "_until", 0.0)
        assert await bytes_for("10.0.0.1") == 100_000

    asyncio.run(scenario())
