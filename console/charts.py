"""Curves, drawn by ECharts as SVG: there a colour may be a variable of the style sheet, so that both themes work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from console.history import Curve, History, Member

_MOST_POINTS = 400
_MOST_COLOURS = 6
_AXIS: dict[str, Any] = {
    "axisLabel": {"color": "var(--muted)", "fontSize": 12, "hideOverlap": True},
    "axisLine": {"lineStyle": {"color": "var(--edge)"}},
    "splitLine": {"lineStyle": {"color": "var(--line)"}},
    "nameTextStyle": {"color": "var(--muted)"},
}


@dataclass(frozen=True)
class Line:
    """A curve and how it looks."""

    name: str
    curve: Curve
    colour: str
    is_dotted: bool = False
    is_marked: bool = False


def losses(history: History) -> list[Line]:
    """The training loss, and the validation loss."""
    return _known(
        Line("training loss", history.curves.get("train_loss", {}), "var(--series-1)"),
        Line("validation loss", history.curves.get("valid_loss", {}), "var(--series-2)", is_marked=True),
    )


def family(history: History) -> list[Line]:
    """A sweep's members, those in the race in colour."""
    lines, members = [], [*history.members.values()]
    telling = _telling(members)
    for place, member in enumerate(members):
        is_out = member.fate not in (None, "chosen")
        colour = "var(--edge)" if is_out else f"var(--series-{place % _MOST_COLOURS + 1})"
        said = f" ({member.fate})" if member.fate else ""
        lines.append(Line(member.named(telling) + said, member.losses, colour, is_dotted=is_out, is_marked=True))
    return _known(*lines)


def _telling(members: Sequence[Member]) -> list[str]:
    """The settings by which they differ: what is the same in all of them would fill the legend."""
    names = dict.fromkeys(name for member in members for name in member.settings)
    return [name for name in names if len({str(member.settings.get(name)) for member in members}) > 1] or [*names]


def one(history: History, name: str, words: str, colour: int = 1, *, is_marked: bool = False) -> list[Line]:
    """A single curve."""
    return _known(Line(words, history.curves.get(name, {}), f"var(--series-{colour})", is_marked=is_marked))


def chart(label: str, *, height: int = 300) -> ui.echart:
    """An empty chart. `label` is what it shows, for whoever does not see it."""
    element = ui.echart(options([], 1), renderer="svg").style(f"height: {height}px")
    return element.classes("chart").props(f'role=img aria-label="{label}"')


def draw(
    element: ui.echart,
    lines: Sequence[Line],
    steps: int,
    *,
    percent: bool = False,
    is_loss: bool = False,
    has_legend: bool = True,
) -> None:
    """Put these curves in place of what was there."""
    element.options.clear()
    told = options(lines, steps, percent=percent, is_loss=is_loss)
    if not has_legend:
        told["legend"]["show"], told["grid"]["top"] = False, 16
    element.options.update(told)
    element.update()


def legend(place: ui.element, lines: Sequence[Line]) -> None:
    """The names of many curves, as text below one another or beside: the chart's own cuts off what is too long."""
    place.clear()
    with place:
        for line in lines:
            with ui.element("li").classes("dashed" if line.is_dotted else "").style(f"--colour: {line.colour}"):
                ui.label(line.name)


def options(lines: Sequence[Line], steps: int, *, percent: bool = False, is_loss: bool = False) -> dict[str, Any]:
    """ECharts' own words for the curves, from the first step to the last of `steps`. Losses that differ widely are on a
    logarithmic axis."""
    values = [value for line in lines for value in line.curve.values()]
    is_wide = is_loss and min(values, default=0) > 0 and max(values, default=0) > 8 * min(values, default=1)
    return {
        "animation": False,
        "grid": {"left": 8, "right": 16, "top": 40 if len(lines) > 1 else 16, "bottom": 8, "containLabel": True},
        "legend": {
            "show": len(lines) > 1,
            "top": 0,
            "left": 0,
            "type": "scroll",
            "textStyle": {"color": "var(--text)"},
            "inactiveColor": "var(--edge)",
            "pageTextStyle": {"color": "var(--muted)"},
            "pageIconColor": "var(--accent)",
        },
        # Names of series come from settings, but what people write is text here as everywhere.
        "tooltip": {
            "trigger": "axis",
            "renderMode": "html",
            "confine": True,
            "backgroundColor": "var(--surface)",
            "borderColor": "var(--edge)",
            "textStyle": {"color": "var(--text)"},
        },
        "xAxis": {
            "type": "value",
            "min": 0,
            "max": max(steps, 1),
            "splitNumber": 4,
            **_AXIS,
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "log" if is_wide else "value",
            "scale": True,
            "splitNumber": 4,
            **({"min": 0, "max": 100, "interval": 25} if percent else {}),
            **_AXIS,
            "axisLabel": {**_AXIS["axisLabel"], "formatter": "{value} %" if percent else "{value}"},
        },
        "series": [_series(line, percent=percent) for line in lines],
    }


def thinned(curve: Curve) -> list[tuple[int, float]]:
    """Its points in the order of steps; of very many, the lowest and the highest of each stretch."""
    points = sorted(curve.items())
    if len(points) <= _MOST_POINTS:
        return points
    size = -(-2 * len(points) // _MOST_POINTS)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _series(line: Line, *, percent: bool) -> dict[str, Any]:
    scale = 100 if percent else 1
    return {
        "type": "line",
        "name": line.name,
        "data": [[step, round(value * scale, 6)] for step, value in thinned(line.curve)],
        "showSymbol": line.is_marked or len(line.curve) == 1,
        "symbol": "circle",
        "symbolSize": 6,
        "color": line.colour,
        "itemStyle": {"color": line.colour},
        "lineStyle": {"color": line.colour, "width": 2, "type": "dashed" if line.is_dotted else "solid"},
        "emphasis": {"disabled": True},
    }


def _known(*lines: Line) -> list[Line]:
    return [line for line in lines if line.curve]
