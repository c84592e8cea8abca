"""The lines that the comparison is about. What was not run, or not with every seed, is not met."""

from collections.abc import Callable, Iterator

from benchmarks.quality.data import DATASETS
from benchmarks.quality.summary import Result, Results
from benchmarks.report import Report

# The points that the presets of these names are.
SMALL, BALANCED = "osora-128", "osora-128-mix-16"
MOST_BALANCED_VALUES = 250_000
LORA, SMALLEST_LORA, VERA = "lora-8", "lora-1", "vera-256"
_ACCURACY = [name for name, protocol in DATASETS.items() if protocol.measure == "accuracy"]


def add_targets(report: Report, results: Results, seeds: int) -> None:
    """Put the targets that `results` meet, miss or do not tell into the report."""
    whole = {
        dataset: {name: result for name, result in found.items() if result.seeds >= seeds}
        for dataset, found in results.items()
    }
    _dial(report, whole)
    _presets(report, whole)
    for part in ("s", "o"):
        gains = [
            found[SMALL].score - found[f"{SMALL}-{part}"].score for found in _with(whole, SMALL, f"{SMALL}-{part}")
        ]
        least = min(gains, default=None)
        report.target(f"both vectors over {part} alone, least", least, "", "> 0", least is not None and least > 0)
    edges = sum(result.edge for found in results.values() for result in found.values())
    report.target("methods best at an edge of the grid", edges, "", "== 0", any(results.values()) and edges == 0)


def _dial(report: Report, results: Results) -> None:
    """How far the nearest point of the dial that has half of LoRA's values is behind it, where it is furthest."""
    behind: dict[str, float] = {}
    found = [results.get(dataset, {}) for dataset in _ACCURACY]
    everywhere = set.intersection(*map(set, found))
    for name in everywhere if LORA in everywhere else ():
        own, lora = found[0][name], found[0][LORA]
        if own.method.is_ours and 2 * own.parameters <= lora.parameters:
            behind[name] = max(100 * (of_set[LORA].score - of_set[name].score) for of_set in found)
    nearest = min(behind, key=lambda name: behind[name], default=None)
    points = None if nearest is None else behind[nearest]
    met = points is not None and points <= 1
    label = "points behind LoRA r=8 at half of its values, nearest of the dial"
    report.target(label + ("" if nearest is None else f" ({nearest})"), points, "", "<= 1", met)


def _presets(report: Report, results: Results) -> None:
    values = next((found[BALANCED].parameters for found in _with(results, BALANCED)), None)
    fits = values is not None and values <= MOST_BALANCED_VALUES
    report.target(f"values of balanced ({BALANCED})", values, "", f"<= {MOST_BALANCED_VALUES}", fits)
    ahead = _ahead(results, BALANCED, VERA, lambda own, other: own.parameters <= other.parameters)
    name = f"datasets where balanced ({BALANCED}) is ahead of VeRA r=256 at no more values, beyond the spread"
    report.target(name, ahead, "", ">= 2", ahead is not None and ahead >= 2)
    ahead = _ahead(results, SMALL, SMALLEST_LORA, lambda own, other: own.parameters < other.parameters)
    wanted = len(DATASETS)
    name = f"datasets where small ({SMALL}) is ahead of LoRA r=1 at fewer values"
    report.target(name, ahead, "", f">= {wanted}", ahead is not None and ahead >= wanted)


def _ahead(results: Results, name: str, rival: str, fewer: Callable[[Result, Result], bool]) -> int | None:
    """On how many datasets a method is ahead; against LoRA by any margin, against VeRA by more than the spread."""
    pairs = [(found[name], found[rival]) for found in _with(results, name, rival)]
    if not pairs:
        return None
    return sum(fewer(own, other) and own.score - other.score > _noise(own, other, rival) for own, other in pairs)


def _noise(own: Result, other: Result, rival: str) -> float:
    return float((own.spread**2 + other.spread**2) ** 0.5) if rival == VERA else 0.0


def _with(results: Results, *names: str) -> Iterator[dict[str, Result]]:
    return (dict(found) for found in results.values() if set(names) <= set(found))
