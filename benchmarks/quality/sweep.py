"""The runs of a comparison: each done once, kept at once, and the grid extended until its best is inside."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.quality import grid
from benchmarks.quality.bases import Base
from benchmarks.quality.data import DATASETS, Data
from benchmarks.quality.grid import Point
from benchmarks.quality.learned import Diverged, Learned
from benchmarks.quality.methods import Method
from benchmarks.report import Report
from osora_core.training import JobSpec

Row = dict[str, Any]


@dataclass
class Sweep:
    """The runs over one base. Those that the report holds already are not made again; after `seconds` (None: never) no
    further batch of runs begins."""

    report: Report
    base: Base
    options: Any

    def __post_init__(self) -> None:
        self._ends = None if self.options.seconds is None else time.monotonic() + self.options.seconds

    @property
    def out_of_time(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends

    def method(self, dataset: str, data: Data, method: Method) -> None:
        """All starting rates with the first seed and what the best of them lacks beside it, then that with the other
        seeds."""
        first, *others = self.options.seeds
        measure = DATASETS[dataset].measure
        starts = dict(method.starts) | ({"learning_rate": tuple(self.options.rates)} if self.options.rates else {})
        wanted = grid.start(list(starts.values()))
        tried: dict[Point, Row] = {}
        while wanted and not self.out_of_time:
            tried |= self.runs(dataset, data, method, wanted, first)
            wanted = grid.extension(measure, tried)
            if wanted:
                print(
                    f"  {dataset} {method.name}: best at the edge of the grid, which goes on to {_said(wanted)}",
                    flush=True,
                )
        best = grid.best_point(measure, tried)
        if best is not None and not wanted and not self.out_of_time:
            self.train(dataset, data, method, [self._key(dataset, data, method, best, seed) for seed in others])

    def runs(
        self, dataset: str, data: Data, method: Method, points: Sequence[Point], seed: int
    ) -> Iterator[tuple[Point, Row]]:
        """The row of each of these points with a seed, as far as there was time to train it."""
        keys = {point: self._key(dataset, data, method, point, seed) for point in points}
        self.train(dataset, data, method, list(keys.values()))
        return ((point, row) for point, key in keys.items() if (row := self._find(key)) is not None)

    def train(self, dataset: str, data: Data, method: Method, keys: Sequence[Row]) -> None:
        """Train what the report has not yet, as many runs side by side as the options say."""
        missing = [key for key in keys if self._find(key) is None]
        at_once = self.options.at_once
        for start in range(0, len(missing), at_once):
            if self.out_of_time:
                return
            self._batch(data, method, missing[start : start + at_once])

    def _key(self, dataset: str, data: Data, method: Method, point: Point, seed: int) -> Row:
        """What names a run, and may not differ for it to be the same."""
        protocol = DATASETS[dataset]
        return {
            "base": self.base.name,
            "dtype": self.base.dtype_name,
            "dataset": dataset,
            "method": method.name,
            "rows": len(data.train),
            "test_rows": len(data.test),
            "epochs": self.options.epochs or protocol.epochs,
            "batch_size": self.options.batch_size or protocol.batch_size,
            **dict(zip(method.starts, point, strict=True)),
            "seed": seed,
        }

    def _find(self, key: Row) -> Row | None:
        return next((row for row in self.report.rows if key.items() <= row.items()), None)

    def _batch(self, data: Data, method: Method, keys: Sequence[Row]) -> None:
        begun = time.perf_counter()
        learner = method.learner(self.base)
        fields = method.fields(self.base)
        results = learner.learn(
            data.train, {"valid": data.valid, "test": data.test}, [_spec(method, fields, key) for key in keys]
        )
        if self.base.device == "cuda":
            torch.cuda.empty_cache()
        seconds = (time.perf_counter() - begun) / len(keys)
        for key, learned in zip(keys, results, strict=True):
            self.report.add(**key, **_figures(learned), seconds=seconds, machine=self._machine)
        self.report.write(self.options.json)

    @property
    def _machine(self) -> str:
        machine: Mapping[str, Any] = self.report.machine
        return str(machine.get("accelerator", machine["processor"]))


def _spec(method: Method, fields: Mapping[str, Any], key: Row) -> JobSpec:
    rates = {name: key[name] for name in method.starts}
    shape = {name: key[name] for name in ("seed", "epochs", "batch_size")}
    return JobSpec(evaluate="never", **shape, **fields, **rates)


def _figures(learned: Learned | Diverged) -> Row:
    if isinstance(learned, Diverged):
        return {"diverged": learned.reason}
    test, valid = learned.scores["test"], learned.scores["valid"]
    return {
        "loss": test.loss,
        "accuracy": test.accuracy,
        "valid_loss": valid.loss,
        "valid_accuracy": valid.accuracy,
        "parameters": learned.parameters,
        "bytes": learned.bytes,
    }


def _said(points: Sequence[Point]) -> str:
    return ", ".join(" / ".join(f"{value:g}" for value in point) for point in points)
