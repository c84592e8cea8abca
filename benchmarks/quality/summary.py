"""What the runs say: each method at its best rates, as a table."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality import grid
from benchmarks.quality.data import DATASETS
from benchmarks.quality.methods import Method


@dataclass(frozen=True)
class Result:
    """A method at its best rates on a dataset. `mean` and `spread` of the seeds are the dataset's measure; `score` is
    the mean, better when higher; edge: whether nothing was tried on some side of the best."""

    method: Method
    mean: float
    spread: float
    score: float
    rates: tuple[float, ...]
    edge: bool
    seeds: int
    parameters: int
    bytes: int
    seconds: float


Results = Mapping[str, Mapping[str, Result]]
"""By dataset, then by method's name."""


def summarise(
    rows: Sequence[Mapping[str, Any]], base: str, dataset: str, methods: Sequence[Method], seeds: Sequence[int]
) -> dict[str, Result]:
    """The best rates of every method that has finished its first seed's grid, or part of it, on a dataset."""
    results = {}
    for method in methods:
        own = [row for row in rows if (row["base"], row["dataset"], row["method"]) == (base, dataset, method.name)]
        if (found := _result(own, dataset, method, seeds[0])) is not None:
            results[method.name] = found
    return results


def _result(rows: Sequence[Mapping[str, Any]], dataset: str, method: Method, first: int) -> Result | None:
    measure = DATASETS[dataset].measure
    points = [tuple(row[name] for name in method.starts) for row in rows]
    tried = {point: row for point, row in zip(points, rows, strict=True) if row["seed"] == first}
    best = grid.best_point(measure, tried)
    if best is None:
        return None
    ran = [row for point, row in zip(points, rows, strict=True) if point == best and "diverged" not in row]
    values = [row[measure] for row in ran]
    mean = statistics.mean(values)
    return Result(
        method=method,
        mean=mean,
        spread=statistics.stdev(values) if len(values) > 1 else math.nan,
        score=mean if measure == "accuracy" else -mean,
        rates=best,
        edge=grid.at_edge(best, tried),
        seeds=len(ran),
        parameters=ran[0]["parameters"],
        bytes=ran[0]["bytes"],
        seconds=statistics.mean(row["seconds"] for row in ran),
    )


def table(results: Results, methods: Sequence[Method], seeds: int) -> str:
    """The results in Markdown: mean and deviation of the seeds, best rates in brackets, and what is not complete."""
    datasets = [dataset for dataset, found in results.items() if found]
    names = {"accuracy": "accuracy", "loss": "nats a token"}
    heads = ["", "values", "bytes", "seconds a run", *(f"{d}, {names[DATASETS[d].measure]}" for d in datasets)]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for method in methods:
        own = [results[dataset].get(method.name) for dataset in datasets]
        known = [result for result in own if result is not None]
        if known:
            seconds = " / ".join("-" if result is None else f"{result.seconds:.1f}" for result in own)
            sizes = [f"{known[0].parameters:,}", f"{known[0].bytes:,}"]
            lines.append(_line([method.label, *sizes, seconds, *(_cell(result, seeds) for result in own)]))
    return "\n".join(lines)


def _cell(result: Result | None, seeds: int) -> str:
    if result is None:
        return "-"
    spread = "" if math.isnan(result.spread) else f" ± {result.spread:.4f}"
    notes = [" / ".join(f"{rate:g}" for rate in result.rates)]
    notes += ["edge of the grid"] if result.edge else []
    notes += [f"{result.seeds} of {seeds} seeds"] if result.seeds < seeds else []
    return f"{result.mean:.4f}{spread} ({'; '.join(notes)})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
