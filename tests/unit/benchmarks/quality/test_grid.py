"""The grid goes on until its best is inside."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.quality.grid import MOST_VALUES, Point, at_edge, best_point, extension, start


def _search(axes: list[tuple[float, ...]], loss: Callable[[Point], float | None]) -> dict[Point, Any]:
    """Everything that is tried where a point has this loss; None is one that diverges."""
    tried: dict[Point, Any] = {}
    wanted = start(axes)
    while wanted:
        for point in wanted:
            value = loss(point)
            tried[point] = {"diverged": "nan"} if value is None else {"valid_loss": value}
        wanted = extension("loss", tried)
        assert not set(wanted) & set(tried)
    return tried


@pytest.mark.parametrize("optimum", [1e-4, 0.03, 1.0])
def test_goes_on_to_either_side(optimum: float) -> None:
    tried = _search([(0.01, 0.03)], lambda point: abs(point[0] - optimum) / optimum)
    best = best_point("loss", tried)
    assert best == (optimum,)
    assert not at_edge(best, tried)
    assert {min(tried)[0] < optimum, max(tried)[0] > optimum} == {True}


def test_a_rate_that_diverges_bounds_the_grid() -> None:
    tried = _search([(0.01, 0.03)], lambda point: None if point[0] > 0.05 else -point[0])
    assert sorted(tried) == [(0.01,), (0.03,), (0.1,)]
    assert best_point("loss", tried) == (0.03,)


def test_goes_down_where_all_diverge() -> None:
    tried = _search([(0.1, 0.3)], lambda point: None if point[0] > 0.002 else point[0] ** -1)
    assert best_point("loss", tried) == (0.001,)


def test_two_rates_each_get_neighbours_of_the_best() -> None:
    tried = _search([(0.01, 0.03), (0.1,)], lambda point: abs(point[0] - 0.1) + abs(point[1] - 1.0))
    best = best_point("loss", tried)
    assert best == (0.1, 1.0)
    assert {(0.03, 1.0), (0.3, 1.0), (0.1, 0.3), (0.1, 3.0)} <= set(tried)


def test_gives_up_in_the_end_and_says_that_it_is_at_the_edge() -> None:
    tried = _search([(0.01,)], lambda point: -point[0])
    assert len(tried) <= MOST_VALUES + 1
    best = best_point("loss", tried)
    assert best is not None
    assert at_edge(best, tried)


def test_nothing_is_best_where_everything_diverged() -> None:
    tried = _search([(0.01,)], lambda _: None)
    assert best_point("loss", tried) is None
    assert len(tried) == MOST_VALUES


def test_equal_accuracies_go_by_the_loss() -> None:
    tried = {
        (0.01,): {"valid_accuracy": 0.5, "valid_loss": 2.0},
        (0.03,): {"valid_accuracy": 0.5, "valid_loss": 1.0},
        (0.1,): {"valid_accuracy": 0.4, "valid_loss": 0.5},
    }
    assert best_point("accuracy", tried) == (0.03,)
