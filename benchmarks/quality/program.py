"""The command: what to run, and what to show of it."""

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

import benchmarks.quality
from benchmarks.quality.bases import Base
from benchmarks.quality.data import DATASETS, load
from benchmarks.quality.methods import DEFAULT, Method, named
from benchmarks.quality.plot import plot
from benchmarks.quality.summary import summarise, table
from benchmarks.quality.sweep import Sweep
from benchmarks.quality.targets import add_targets
from benchmarks.report import Report, parser
from osora_core import base_models
from osora_core.data import Renderer
from osora_core.runtime import load_tokenizer, usable_length

AT_ONCE = {"cpu": 4, "cuda": 16}
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
_COLUMNS = {
    "dataset": "10", "method": "16", "learning_rate": "13g", "mix_rate": "8g", "seed": "4", "loss": "8.4f",
    "accuracy": "8.4f", "seconds": "8.1f", "diverged": "8",
}  # fmt: skip


def train(report: Report, options: Any) -> None:
    """Every run that the report has not yet, as far as there is time."""
    torch.backends.cuda.matmul.allow_tf32 = True
    base = _base(options)
    renderer = Renderer(load_tokenizer(base_models.resolve(base.source)), usable_length(base.plain.config))
    sweep = Sweep(report, base, options)
    for dataset in options.datasets:
        data = load(options.data, dataset, renderer, options.rows or DATASETS[dataset].rows, options.test_rows)
        for method in options.methods or map(named, DEFAULT):
            if sweep.out_of_time:
                print("  out of time: start again with the same file to go on")
                return
            with report.guard(base=base.name, dataset=dataset, method=method.name, seed=None):
                sweep.method(dataset, data, method)


def show(report: Report, options: Any) -> None:
    """Table, plots and targets of what the report holds of a base."""
    base = _base(options).name
    rows = [row for row in report.rows if "failed" not in row]
    seeds, methods = options.seeds, options.methods or _shown(rows, base)
    results = {name: summarise(rows, base, name, methods, seeds) for name in options.datasets}
    print("\n" + table(results, methods, len(seeds)) + "\n")
    add_targets(report, results, len(seeds))
    for dataset, found in results.items():
        if options.plot is not None and found:
            options.plot.mkdir(parents=True, exist_ok=True)
            (options.plot / f"quality-{dataset}.svg").write_text(plot(base, dataset, found))


def _shown(rows: Sequence[Mapping[str, Any]], base: str) -> list[Method]:
    """The table's methods, and behind them what else was run."""
    return [named(name) for name in dict.fromkeys((*DEFAULT, *(row["method"] for row in rows if row["base"] == base)))]


def _base(options: Any) -> Base:
    return Base(options.base, options.device, getattr(torch, options.dtype or DTYPES[options.device]))


def _method(name: str) -> Method:
    try:
        return named(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _options() -> Any:
    arguments = parser(benchmarks.quality.__doc__)
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--base", default="osora-tiny", help="a bundled base or a model directory")
    arguments.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the base (default: by device)")
    arguments.add_argument("--data", type=Path, help="the folder with the datasets; without it, nothing is trained")
    arguments.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    arguments.add_argument("--methods", nargs="+", type=_method, help="default: those of the table")
    arguments.add_argument("--rates", nargs="+", type=float, help="learning rates to start with (default: by method)")
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--rows", type=int, help="training rows, a tenth of them kept back (default: by dataset)")
    arguments.add_argument("--test-rows", type=int, help="test rows (default: all)")
    arguments.add_argument("--epochs", type=int, help="passes over the rows (default: by dataset)")
    arguments.add_argument("--batch-size", type=int, help="rows a step (default: by dataset)")
    arguments.add_argument("--at-once", type=int, help=f"runs side by side (default: {AT_ONCE})")
    arguments.add_argument("--seconds", type=float, help="begin no batch of runs after so long")
    arguments.add_argument("--plot", type=Path, metavar="FOLDER", help="draw quality-DATASET.svg into it")
    options = arguments.parse_args()
    options.at_once = options.at_once or AT_ONCE[options.device]
    return options


def main() -> None:
    """The command."""
    options = _options()
    warnings.filterwarnings("ignore")  # PEFT's remarks on every one of hundreds of models
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    report = Report(options.device, _COLUMNS)
    if options.json is not None and options.json.exists():
        held = json.loads(options.json.read_text())
        report.rows += [row for row in held["rows"] if "failed" not in row]  # what failed is tried again
        report.machine = report.machine if options.data is not None else held["machine"]
        print(f"  {len(report.rows)} runs are in {options.json} already", flush=True)
    if options.data is not None:
        train(report, options)
    show(report, options)
    report.write(options.json)
