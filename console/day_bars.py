"""Stacked bars, one for each day."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from console.charts import options

_HEIGHT = 220


def bars(label: str, days: Sequence[str], series: Mapping[str, Sequence[float]], *, colour: int = 1) -> None:
    """`series`: by what each is called, a value for each day; their colours go on from `colour`."""
    lines = [
        _series(name, values, f"var(--series-{place})") for place, (name, values) in enumerate(series.items(), colour)
    ]
    told = options([], 1) | {"series": lines}
    told["grid"] = {**told["grid"], "top": 40 if len(lines) > 1 else 16}
    told["legend"] = {**told["legend"], "show": len(lines) > 1}
    told["xAxis"] = {**told["xAxis"], "type": "category", "data": [day[5:] for day in days], "min": None, "max": None}
    told["yAxis"] = {**told["yAxis"], "scale": False}
    element = ui.echart(told, renderer="svg").style(f"height: {_HEIGHT}px").classes("chart")
    element.props["role"] = "img"
    element.props["aria-label"] = f"{label}: {_in_words(series)}"


def _series(name: str, values: Sequence[float], colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "stack": "all",
        "data": [round(value, 1) for value in values],
        "itemStyle": {"color": colour},
        "color": colour,
        "barMaxWidth": 28,
        "emphasis": {"disabled": True},
    }


def _in_words(series: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {sum(values):,.0f} in all" for name, values in series.items())
