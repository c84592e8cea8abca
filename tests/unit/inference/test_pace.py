"""Tokens a second, lately."""

from inference.pace import Pace


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


def test_pace_is_that_of_the_last_ten_whole_seconds() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.per_second == 0
    pace.count(30)
    clock.time += 0.5
    pace.count(20)
    assert pace.per_second == 0, "this second has not ended"
    clock.time += 1
    pace.count(999)
    assert pace.per_second == 5
    clock.time = 110.9
    assert pace.per_second == (50 + 999) / 10
    clock.time = 111.0
    assert pace.per_second == 99.9, "the first second is longer ago than that"
    clock.time = 500.0
    assert pace.per_second == 0


def test_pace_of_every_second_is_counted() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(30):
        pace.count(7)
        clock.time += 1
    assert pace.per_second == 7
