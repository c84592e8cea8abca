"""The grid of a method's rates: 1, 3, 10 and so on, extended until the best has tried neighbours on both sides."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

Point = tuple[float, ...]
"""A value of each rate, in the order of the method's axes."""
Tried = Mapping[Point, Mapping[str, Any]]
"""The row of each point that was run with the first seed."""

MOST_VALUES = 12
"""Of one rate, others equal: where not even these hold the best, it is left at the edge, and said to be there."""
_NEAR = 1.5


def start(axes: Sequence[Sequence[float]]) -> list[Point]:
    """Every combination of the values to start with."""
    return sorted(product(*axes))


def best_point(measure: str, tried: Tried) -> Point | None:
    """The point that is best on the rows kept back; ties in accuracy go to the lower loss. None if all diverged."""
    finished = {point: row for point, row in tried.items() if "diverged" not in row}
    if not finished:
        return None
    if measure == "accuracy":
        return max(finished, key=lambda point: (finished[point]["valid_accuracy"], -finished[point]["valid_loss"]))
    return min(finished, key=lambda point: float(finished[point]["valid_loss"]))


def extension(measure: str, tried: Tried) -> list[Point]:
    """What to try next: the neighbours that the best point lacks. Where all diverged, the rates below all."""
    best = best_point(measure, tried)
    if best is None:
        lowest = min(tried)
        at_most = len(tried) < MOST_VALUES
        return [tuple(_below(value) for value in lowest)] if at_most else []
    return [(*best[:axis], value, *best[axis + 1 :]) for axis, value in _missing(best, tried)]


def at_edge(best: Point, tried: Iterable[Point]) -> bool:
    """Whether nothing was tried on some side of the best."""
    return any(not _sides(best, axis, tried)[side] for axis in range(len(best)) for side in (0, 1))


def _missing(best: Point, tried: Tried) -> list[tuple[int, float]]:
    found = []
    for axis, value in enumerate(best):
        below, above = _sides(best, axis, tried)
        if len(below) + len(above) + 1 >= MOST_VALUES:
            continue
        found += [] if below else [(axis, _below(value))]
        found += [] if above else [(axis, _above(value))]
    return found


def _sides(best: Point, axis: int, tried: Iterable[Point]) -> tuple[list[float], list[float]]:
    """The tried values of a rate below and above the best's, all others equal."""
    line = [p[axis] for p in tried if p[:axis] == best[:axis] and p[axis + 1 :] == best[axis + 1 :]]
    return [v for v in line if v < best[axis]], [v for v in line if v > best[axis]]


def _above(value: float) -> float:
    return _rung(math.ceil(2 * math.log10(_NEAR * value) - 1e-9))


def _below(value: float) -> float:
    return _rung(math.floor(2 * math.log10(value / _NEAR) + 1e-9))


def _rung(index: int) -> float:
    """..., 0.01, 0.03, 0.1, ..."""
    tens, half = divmod(index, 2)
    return float(f"{3 if half else 1}e{tens}")
