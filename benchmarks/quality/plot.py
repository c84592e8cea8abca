"""Quality over values as an SVG that needs nothing else, on a light page or a dark one."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.quality.data import DATASETS
from benchmarks.quality.summary import Result

WIDTH, HEIGHT = 860, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 30, 50, 60
_CHARACTER, _LINE = 6.4, 14
_STYLE = """
    .page { fill: #ffffff } text { fill: #1f2328 } .grid { stroke: #d1d9e0 } .frontier { stroke: #59636e }
    .ours { fill: #0969da } .other { fill: #bc4c00 } .spread { stroke: #59636e }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d } .frontier { stroke: #9198a1 }
      .ours { fill: #4493f8 } .other { fill: #f0883e } .spread { stroke: #9198a1 }
    }
"""
_Box = tuple[float, float, float, float]


def plot(base: str, dataset: str, results: Mapping[str, Result]) -> str:
    """A dataset's results: values on a logarithmic axis, better above, and the line of what nothing smaller beats."""
    found = sorted(results.values(), key=lambda result: result.parameters)
    measure = DATASETS[dataset].measure
    axes = _Axes([result.parameters for result in found], [result.score for result in found])
    places = [(axes.x(result.parameters), axes.y(result.score)) for result in found]
    what = "accuracy" if measure == "accuracy" else "loss, nats a token (less is above)"
    title = f"{dataset} on {base}: {what} over trained values"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        'font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="12"/>',
        f'<text x="{_LEFT}" y="28" font-size="15" font-weight="600">{escape(title)}</text>',
        *axes.lines(),
        f'<polyline class="frontier" fill="none" stroke-dasharray="4 4" points="{_frontier(found, places)}"/>',
        *_points(found, places, axes),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Axes:
    """From values and scores to places on the page."""

    def __init__(self, values: Sequence[int], scores: Sequence[float]) -> None:
        self.first = math.log10(min(values)) - 0.15
        self.last = math.log10(max(values)) + 0.35  # room for a label
        spread = max(scores) - min(scores) or 0.1 * abs(scores[0]) or 0.1
        self.low, self.high = min(scores) - 0.08 * spread, max(scores) + 0.12 * spread

    def x(self, values: float) -> float:
        share = (math.log10(values) - self.first) / (self.last - self.first)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, score: float) -> float:
        share = (score - self.low) / (self.high - self.low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    def lines(self) -> list[str]:
        """Lines and numbers of both axes."""
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for values in self._ticks_of_values():
            x = self.x(values)
            parts.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
            parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_short(values)}</text>')
        for score in self._ticks_of_scores():
            y = self.y(score)
            parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{abs(score):.4g}</text>')
        middle = (_LEFT + right) / 2
        parts.append(f'<text x="{middle}" y="{bottom + 38}" text-anchor="middle">trained values</text>')
        return parts

    def _ticks_of_values(self) -> list[float]:
        exponents = range(math.floor(self.first), math.ceil(self.last) + 1)
        ticks = [float(f"{factor}e{exponent}") for exponent in exponents for factor in (1, 3)]
        return [tick for tick in ticks if self.first <= math.log10(tick) <= self.last]

    def _ticks_of_scores(self) -> list[float]:
        rough = (self.high - self.low) / 5
        power = 10 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        return [round(i * step, 10) for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _frontier(found: Sequence[Result], places: Sequence[tuple[float, float]]) -> str:
    """The places of what is better than everything with no more values."""
    best, corners = -math.inf, []
    for result, (x, y) in zip(found, places, strict=True):
        if result.score > best:
            best = result.score
            corners.append(f"{x},{y}")
    return " ".join(corners)


def _points(found: Sequence[Result], places: Sequence[tuple[float, float]], axes: _Axes) -> list[str]:
    parts: list[str] = []
    taken: list[_Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for result, (x, y) in zip(found, places, strict=True):
        kind = "ours" if result.method.is_ours else "other"
        if result.spread > 0:
            above, below = axes.y(result.score + result.spread), axes.y(result.score - result.spread)
            parts.append(f'<line class="spread" x1="{x}" y1="{above}" x2="{x}" y2="{below}"/>')
        parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="4.5"/>')
        left, base, box = _label(x, y, len(result.method.name), taken)
        taken.append(box)
        parts.append(f'<text x="{left:.1f}" y="{base:.1f}" font-size="11">{escape(result.method.name)}</text>')
    return parts


def _label(x: float, y: float, characters: int, taken: Sequence[_Box]) -> tuple[float, float, _Box]:
    """Where a point's name begins, its base line and its box: beside the point, where it covers least."""
    width = _CHARACTER * characters
    beside = [(x + 8, y + 4), (x - 8 - width, y + 4)]
    around = [(x - width / 2, y + 4 + sign * away * _LINE) for away in (1, 2, 3) for sign in (-1, 1)]
    tries: list[tuple[float, int, float, float, _Box]] = []
    for left, base in (*beside, *around):
        box = (left, base - 11, left + width, base + 3)
        outside = left < _LEFT or left + width > WIDTH - 4 or base < _TOP or base > HEIGHT - _BOTTOM
        tries.append((sum(_overlap(box, other) for other in taken) + 1e6 * outside, len(tries), left, base, box))
    _, _, left, base, box = min(tries)
    return left, base, box


def _overlap(one: _Box, other: _Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _legend() -> list[str]:
    x, y = WIDTH - 250, HEIGHT - 12
    return [
        f'<circle class="ours" cx="{x}" cy="{y - 4}" r="4.5"/><text x="{x + 10}" y="{y}">OSoRA, the dial</text>',
        f'<circle class="other" cx="{x + 120}" cy="{y - 4}" r="4.5"/><text x="{x + 130}" y="{y}">other methods</text>',
    ]


def _short(values: float) -> str:
    if values >= 1e6:
        return f"{values / 1e6:g}M"
    return f"{values / 1e3:g}k" if values >= 1e3 else f"{values:g}"
