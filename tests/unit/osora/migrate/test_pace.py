from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from osora.migrate.pace import Pace, PaceStoppedError
from osora.retries import asked_to_wait
from tests.support.threads import in_parallel


class Clock:
    """Seconds that pass only when somebody waits for them."""

    def __init__(self, pace_now: float = 100.0) -> None:
        self.now = pace_now

    def __call__(self) -> float:
        return self.now


class Waiting:
    """What a pace sleeps with: the clock moves instead."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stopped = False

    def is_set(self) -> bool:
        return self.stopped

    def set(self) -> None:
        self.stopped = True

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def paced(clock: Clock, per_minute: float | None) -> Pace:
    pace = Pace(per_minute, clock)
    pace._stopped = Waiting(clock)  # type: ignore[assignment]
    return pace


def test_requests_go_evenly(clock: Clock) -> None:
    pace = paced(clock, 30)
    times = []
    for _ in range(4):
        pace.wait()
        times.append(clock.now)
    assert times == [100, 102, 104, 106]


def test_without_a_limit_nobody_waits_until_it_is_held(clock: Clock) -> None:
    pace = paced(clock, None)
    pace.wait()
    pace.wait()
    assert clock.now == 100
    pace.hold(7)
    pace.hold(3)
    pace.wait()
    assert clock.now == 107


def test_many_threads_share_one_pace() -> None:
    pace = Pace(60_000)
    in_parallel(8, lambda _: [pace.wait() for _ in range(5)])


def test_those_who_wait_are_let_go() -> None:
    pace = Pace()
    pace.hold(3600)

    def wait(index: int) -> None:
        if index == 0:
            pace.stop()
            return
        with pytest.raises(PaceStoppedError):
            pace.wait()

    in_parallel(3, wait)


def test_a_refusal_says_for_how_long() -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert asked_to_wait(httpx.Headers({"retry-after": "2.5"})) == 2.5
    assert asked_to_wait(httpx.Headers({"retry-after-ms": "1500", "retry-after": "9"})) == 1.5
    assert 3500 < (asked_to_wait(httpx.Headers({"retry-after": in_an_hour})) or 0) <= 3600
    assert asked_to_wait(httpx.Headers({"retry-after": "-5"})) == 0
    assert asked_to_wait(httpx.Headers({"retry-after": "soon"})) is None
    assert asked_to_wait(httpx.Headers()) is None
