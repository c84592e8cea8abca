"""Rates and places, in memory and in a Redis that is shared, hangs, and dies."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from registry.limits import counters as product
from registry.limits.counters import Counters
from tests.support import redis_server
from tests.support.redis_server import OwnServer

WINDOW = 10**9
Later = Callable[[float], None]


@pytest.fixture(autouse=True)
def _long_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """No window ends during a test: windows begin with the minutes of the clock, and these with 2001 and 2033."""
    for module in ("counters", "window"):
        monkeypatch.setattr(f"registry.limits.{module}.SECONDS", WINDOW)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that a busy machine keeps waiting is not away."""
    monkeypatch.setattr(product, "_ANSWER_SECONDS", 60)


@pytest.fixture
def redis() -> Iterator[OwnServer]:
    """A Redis of the network, to ill-treat."""
    with redis_server.own_server(network=True) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where to count."""
    if request.param == "memory":
        return None
    server: OwnServer = request.getfixturevalue("redis")
    return server.url


@pytest.fixture
def later(url: str | None, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Makes it so many seconds later, here and for all that Redis holds."""

    def pass_time(seconds: float) -> None:
        now = time.time() + seconds
        monkeypatch.setattr(time, "time", lambda: now)
        if url is not None:
            with Redis.from_url(url) as client:
                for key in client.scan_iter():
                    client.pexpire(key, client.pttl(key) - round(1000 * seconds))

    return pass_time


def test_a_rate_lets_through_what_fits(url: str | None) -> None:
    async def scenario() -> None:
        async with Counters.open(url) as counters:
            assert [await counters.hit("rate", 3) for _ in range(4)] == [True, True, True, False]
            assert await counters.hit("another", 3)
            window = await counters.window("rate")
            assert window.standing("requests", 3).remaining == 0
            assert 0 < window.free_in(3, 1) <= 2 * WINDOW
            assert not await counters.hit("tokens", 100, 101)
            assert await counters.hit("tokens", 100, 100)

    asyncio.run(scenario())


def test_what_was_reserved_and_not_used_is_given_back(url: str | None) -> None:
    async def scenario() -> None:
        async with Counters.open(url) as counters:
            assert await counters.hit("tokens", 100, 90)
            assert not await counters.hit("tokens", 100, 20)
            await counters.settle("tokens", 90, 10, seconds=0)
            assert (await counters.window("tokens")).used == pytest.approx(10, abs=1)
            assert await counters.hit("tokens", 100, 20)
            # More was used than was reserved: it counts, although it is over the limit.
            await counters.settle("tokens", 20, 300, seconds=0)
            assert (await counters.window("tokens")).used == pytest.approx(310, abs=1)
            # What has faded already is not given back once more.
            await counters.settle("tokens", 300, 0, seconds=WINDOW)
            assert (await counters.window("tokens")).used == pytest.approx(310, abs=1)

    asyncio.run(scenario())


def test_what_is_given_back_late_makes_no_room_for_more_than_the_limit(url: str | None, later: Later) -> None:
    async def scenario() -> None:
        async with Counters.open(url) as counters:
            later(WINDOW - time.time() % WINDOW)  # to where one begins
            assert await counters.hit("tokens", 100, 90)
            later(1.1 * WINDOW)
            assert await counters.hit("tokens", 1000, 30)
            await counters.settle("tokens", 90, 20, seconds=1.1 * WINDOW)
            window = await counters.window("tokens")
            assert (window.previous, window.current) == (20, 30)

    asyncio.run(scenario())


def test_a_place_is_free_again_when_it_is_given_back(url: str | None) -> None:
    async def scenario() -> None:
        async with Counters.open(url) as counters:
            assert await counters.take("place", 2, "a")
            assert await counters.take("place", 2, "b")
            assert not await counters.take("place", 2, "c")
            await counters.free("place", "a")
            assert await counters.take("place", 2, "c")

    asyncio.run(scenario())


def test_processes_share_a_count(redis: OwnServer) -> None:
    async def scenario() -> None:
        async with Counters.open(redis.url) as one, Counters.open(redis.url) as other:
            taken = [await counters.hit("rate", 5) for _ in range(3) for counters in (one, other)]
            assert taken == [True] * 5 + [False]
            assert await one.take("place", 1, "a")
            assert not await other.take("place", 1, "b")

    asyncio.run(scenario())


def test_a_redis_that_dies_refuses_nobody(redis: OwnServer, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with Counters.open(redis.url) as counters:
            assert await counters.hit("rate", 3)
            assert await counters.take("place", 2, "a")
            redis.kill()
            assert [await counters.hit("rate", 3) for _ in range(4)] == [True, True, True, False]  # by itself
            assert await counters.take("place", 1, "b")
            await counters.free("place", "a")
            await counters.free("place", "b")

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert [record.message for record in caplog.records if "Redis" in record.message] == [
        "limits: Redis is away (StorageError); each process counts by itself"
    ]


def test_a_redis_that_hangs_delays_one_request_in_a_while(redis: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_ANSWER_SECONDS", 0.5)

    async def scenario() -> None:
        async with Counters.open(redis.url) as counters:
            assert await counters.hit("rate", 1000)
            redis.hang()
            started = time.monotonic()
            try:
                for _ in range(200):
                    assert await counters.hit("rate", 1000)
                assert time.monotonic() - started < 60  # each of them by itself would have waited half a second
            finally:
                redis.go_on()

    asyncio.run(scenario())


def test_a_redis_that_comes_back_is_counted_in_again(
    redis: OwnServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("registry.limits.counters._OUTAGE_SECONDS", 0)

    async def scenario() -> None:
        async with Counters.open(redis.url) as counters, Counters.open(redis.url) as other:
            redis.kill()
            assert await counters.hit("rate", 2)
            redis.start()
            assert await counters.hit("rate", 2)
            assert await other.hit("rate", 2)
            assert not await counters.hit("rate", 2)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert "limits: Redis is back; all processes count together" in [record.message for record in caplog.records]


def test_a_place_that_is_given_back_while_it_is_renewed_is_free(
    redis: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two Redis hears of first."""

    async def scenario() -> None:
        async with Counters.open(redis.url) as counters:
            assert await counters.take("place", 2, "a")
            assert await counters.take("place", 2, "b")
            client = counters._redis
            assert client is not None
            renew = client.renew

            async def overtaken(key: str, holders: list[str]) -> None:
                await counters.free("place", "a")
                await renew(key, holders)

            monkeypatch.setattr(client, "renew", overtaken)
            await counters._renew(client)
            assert await counters.take("place", 2, "c")
            assert not await counters.take("place", 2, "d")

    asyncio.run(scenario())
