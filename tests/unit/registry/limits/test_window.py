"""When a rate has room again."""

import math

import pytest

from registry.limits.window import Window


@pytest.mark.parametrize(
    ("window", "cost", "seconds"),
    [
        (Window(0, 0, 10, 100), 90, 0),
        (Window(0, 0, 100, 100), 1, 40 + 60 * 0.01),  # all of this window has to become the earlier one, and fade
        (Window(100, 30, 40, 90), 20, 30 - 40 * 60 / 100),  # the earlier one fades far enough
        (Window(100, 30, 50, 90), 50, 30),
        (Window(0, 0, 5, 70), 101, math.inf),
    ],
)
def test_room_is_there_when_enough_has_faded(window: Window, cost: int, seconds: float) -> None:
    assert window.free_in(100, cost) == pytest.approx(seconds)


def test_a_standing_says_what_is_left_and_when_all_is_there_again() -> None:
    standing = Window(100, 30, 20, 90).standing("tokens", 100)
    assert (standing.limit, standing.remaining, standing.reset_in) == (100, 30, 90)
    assert Window(100, 30, 0, 90).standing("tokens", 100).reset_in == 30
    assert Window(0, 0, 0, 0).standing("tokens", 100).reset_in == 0
