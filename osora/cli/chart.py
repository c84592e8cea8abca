"""A chart of losses for a terminal: dots of braille, or plain characters where those cannot be shown."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

Point = tuple[int, float]

_ROWS = 8
_NARROWEST = 30
_WIDEST = 100
# A character of braille has two columns of four dots, which are these bits from the top down.
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_MOST_POINTS = 4_000
_LOGARITHMIC_FROM = 8


@dataclass
class LossChart:
    """The training loss as a line, validation losses as marks, from the first step to the last of `steps`."""

    training: list[Point] = field(default_factory=list)
    validation: list[Point] = field(default_factory=list)
    steps: int = 1

    def add(self, step: int, loss: float | None, *, is_validation: bool = False) -> None:
        """A loss; one that is no number is not drawn."""
        points = self.validation if is_validation else self.training
        if loss is None or not math.isfinite(loss):
            return
        if points and step <= points[-1][0]:  # a job that was taken up again from a checkpoint repeats its steps
            points[:] = [point for point in points if point[0] < step]
        points.append((step, loss))
        self.steps = max(self.steps, step)
        if len(points) > _MOST_POINTS:
            del points[1:-1:2]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _WIDEST)
        if width < _NARROWEST or len(self.training) + len(self.validation) < 2:
            return
        yield from self.lines(width, ascii_only=options.ascii_only)

    def lines(self, width: int, *, ascii_only: bool = False) -> Iterator[Text]:
        """The chart, `width` characters wide."""
        losses = [loss for _, loss in (*self.training, *self.validation)]
        low, high = min(losses), max(losses)
        scale = _Scale(low, high)
        labels = [f"{loss:.3g}" for loss in (high, scale.middle, low)]
        margin = max(map(len, labels))
        area = _Area(width - margin - 3, scale, self.steps, dots=not ascii_only)
        area.draw_line(self.training)
        area.draw_marks(self.validation)
        at = {0: labels[0], _ROWS // 2: labels[1], _ROWS - 1: labels[2]}
        edge = "|" if ascii_only else "│"
        for row, cells in enumerate(area.cells):
            line = Text(f"{at.get(row, ''):>{margin}} {edge}", style="dim")
            for character, is_mark in cells:
                line.append(character, style="bold magenta not dim" if is_mark else "cyan not dim")
            line.rstrip()
            yield line
        last = f"step {self.steps}"
        yield Text(f"{'':>{margin}}  0{last:>{area.width - 1}}", style="dim")
        legend = Text(f"{'':>{margin}}  ", style="dim")
        legend.append(area.line, style="cyan not dim").append(" training loss")
        if self.validation:
            legend.append("  ").append(area.mark, style="bold magenta not dim").append(" validation loss")
        if scale.is_logarithmic:
            legend.append("  (logarithmic)")
        yield legend


class _Scale:
    """From a loss to its height, between 0 and 1: logarithmic where the losses differ by much."""

    def __init__(self, low: float, high: float) -> None:
        self.is_logarithmic = 0 < low * _LOGARITHMIC_FROM <= high
        self._form = math.log if self.is_logarithmic else float
        self._bottom, top = self._form(low), self._form(high)
        self._range = (top - self._bottom) or 1.0
        self.middle = (low * high) ** 0.5 if self.is_logarithmic else (low + high) / 2

    def height(self, loss: float) -> float:
        return (self._form(loss) - self._bottom) / self._range


class _Area:
    """The characters of a chart, each with whether it is a mark."""

    def __init__(self, width: int, scale: _Scale, steps: int, *, dots: bool) -> None:
        self.width = width
        self._scale = scale
        self._steps = max(steps, 1)
        self._across, self._down = (2, 4) if dots else (1, 1)
        self.line, self.mark = ("⠤", "◆") if dots else (".", "o")
        self._set: set[tuple[int, int]] = set()
        self._marks: set[tuple[int, int]] = set()

    @property
    def cells(self) -> list[list[tuple[str, bool]]]:
        """Row by row, from the top."""
        return [[self._cell(row, column) for column in range(self.width)] for row in range(_ROWS)]

    def draw_line(self, points: Sequence[Point]) -> None:
        """The mean of each column's points, joined by straight lines."""
        columns: dict[int, list[float]] = {}
        for step, loss in points:
            columns.setdefault(self._x(step), []).append(loss)
        corners = [(x, self._y(sum(losses) / len(losses))) for x, losses in sorted(columns.items())]
        self._set.update(corners)
        for (x, y), (next_x, next_y) in pairwise(corners):
            for dot in range(count := max(next_x - x, abs(next_y - y))):
                share = dot / count
                self._set.add((round(x + share * (next_x - x)), round(y + share * (next_y - y))))

    def draw_marks(self, points: Sequence[Point]) -> None:
        for step, loss in points:
            self._marks.add((self._x(step) // self._across, self._y(loss) // self._down))

    def _x(self, step: int) -> int:
        return round(step / self._steps * (self.width * self._across - 1))

    def _y(self, loss: float) -> int:
        return round((1 - self._scale.height(loss)) * (_ROWS * self._down - 1))

    def _cell(self, row: int, column: int) -> tuple[str, bool]:
        if (column, row) in self._marks:
            return self.mark, True
        if self._across == 1:
            return (self.line if (column, row) in self._set else " "), False
        bits = 0
        for x, dots in enumerate(_BITS):
            for y, bit in enumerate(dots):
                if (column * 2 + x, row * 4 + y) in self._set:
                    bits |= bit
        return (chr(0x2800 + bits) if bits else " "), False
