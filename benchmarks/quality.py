"""What OSoRA learns beside LoRA, VeRA, PiSSA and full fine-tuning: one grid of learning rates, three seeds.

    python -m benchmarks.quality --data DIR --device cuda --json quality.json
    python -m benchmarks.quality --data DIR --datasets banking77 --rows 512 --methods osora vera-256 lora-8
    python -m benchmarks.quality --json benchmarks/results/quality.json

DIR holds banking77/{train,test}.csv, snips/{train,test}.jsonl and gsm8k/{train,test}.jsonl. Every method tries every
rate with the first seed; the rate that is best on rows kept back from training then runs with the other seeds. The
table shows the test set: the share of answers that are right in every token (banking77, snips), or the loss in nats a
token (gsm8k, where less is better).

The runs of one method train side by side, and its `seconds` are its share of their time. Everything is computed in
float32 (TF32 products on a GPU). Finished runs are written to `--json` at once and not repeated when the program is
started again with the same file: the whole grid takes hours on a CPU, and can be stopped at any time. The last command
shows the table of what has been run.
"""

import csv
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.learners import TOKEN_BUDGET, Diverged, Learned, Learner, Osora, Peer, lora, vera
from benchmarks.report import Report, parser
from osora_core import attention, base_models
from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer, pad, split_by_tokens
from osora_core.errors import DataError
from osora_core.runtime import Runtime
from osora_core.training import JobSpec

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
# Below the grid, for what is best at its lower edge.
LOWER_RATES = {("gsm8k", "full"): (1e-4,)}
# What each method asks of the training spec beyond the rate: OSoRA's rank and which of its vectors train.
OSORA: dict[str, dict[str, Any]] = {
    "osora": {"rank": 128},
    "osora-256": {"rank": 256, "sigma_rate": 1.0},
    "osora-s": {"rank": 128, "train": "s"},
    "osora-o": {"rank": 128, "train": "o"},
}
PEERS = {
    "lora-1": lora(1),
    "lora-8": lora(8),
    "vera-256": vera(256),
    "pissa-8": lora(8, "pissa"),
    "full": None,
}
METHODS = (*OSORA, *PEERS)
BASIS_RANK = 256
_KEPT_BACK = 0.1


@dataclass(frozen=True)
class Protocol:
    """What is measured (accuracy is better high, loss is better low), and how every method trains for it."""

    measure: str
    rows: int
    epochs: int
    batch_size: int


DATASETS = {
    "banking77": Protocol("accuracy", rows=5000, epochs=4, batch_size=64),
    "snips": Protocol("accuracy", rows=3000, epochs=3, batch_size=32),
    "gsm8k": Protocol("loss", rows=2000, epochs=2, batch_size=32),
}


@dataclass(frozen=True)
class Data:
    """A dataset's rendered rows; `valid` chooses the rate, `test` is reported."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]


def read(folder: Path, dataset: str, split: str) -> Iterator[list[dict[str, str]]]:
    """The conversations of a split."""
    if dataset == "banking77":
        with (folder / dataset / f"{split}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                yield _turns(row["text"], row["category"])
    else:
        for line in (folder / dataset / f"{split}.jsonl").read_text().splitlines():
            record = json.loads(line)
            yield record["messages"] if "messages" in record else _turns(record["question"], record["answer"])


def _turns(user: str, assistant: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def load(folder: Path, dataset: str, renderer: Renderer, rows: int | None, test_rows: int | None) -> Data:
    """Rendered rows, thinned evenly to the limits; those too long for the base are left out."""
    train = _render(_thin(list(read(folder, dataset, "train")), rows), renderer)
    test = _render(_thin(list(read(folder, dataset, "test")), test_rows), renderer)
    # A fixed permutation: files are sorted by answer.
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    kept = max(1, int(len(train) * _KEPT_BACK))
    return Data([train[i] for i in order[kept:]], [train[i] for i in order[:kept]], test)


def _thin(rows: list[Any], limit: int | None) -> list[Any]:
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def _render(conversations: Iterable[Any], renderer: Renderer) -> list[Example]:
    examples = []
    for line, messages in enumerate(conversations, start=1):
        try:
            examples.append(renderer.render({"messages": messages}, line))
        except DataError:
            continue
    return examples


@torch.no_grad()
def evaluate(learned: Learned, examples: Sequence[Example], device: torch.device) -> dict[str, float]:
    """Accuracy: rows whose every counted token is the likeliest, as in greedy decoding. Loss: nats a token."""
    loss, tokens, right = 0.0, 0, 0
    for group in split_by_tokens([(example, None) for example in examples], TOKEN_BUDGET[device.type]):
        padded = pad([example for example, _ in group], device)
        logits = learned.answer(padded.inputs, padded.positions).float()
        loss += F.cross_entropy(logits, padded.targets, reduction="sum").item()
        tokens += len(padded.targets)
        wrong = padded.rows[logits.argmax(dim=-1) != padded.targets]
        right += len(group) - len(set(wrong.tolist()))
    return {"loss": loss / tokens, "accuracy": right / len(examples)}


class Sweep:
    """The runs of one dataset, each done once and kept in the report."""

    def __init__(self, report: Report, make: Callable[[str], Learner], options: Any) -> None:
        self.report = report
        self.make = make
        self.options = options

    def method(self, dataset: str, data: Data, method: str) -> None:
        """All rates with the first seed, then the best rate with the others."""
        first, *others = self.options.seeds
        tried = self.runs(dataset, data, method, rates_of(dataset, method, self.options), [first])
        best = best_rate(dataset, {row["rate"]: row for row in tried})
        if best is not None and others:
            self.runs(dataset, data, method, [best], others)

    def runs(
        self, dataset: str, data: Data, method: str, rates: Sequence[float], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        """The rows of these runs; those that the report has not yet are trained side by side."""
        options, protocol = self.options, DATASETS[dataset]
        common = {
            "dataset": dataset,
            "method": method,
            "rows": len(data.train),
            "test_rows": len(data.test),
            "epochs": options.epochs or protocol.epochs,
            "batch_size": options.batch_size or protocol.batch_size,
        }
        wanted = [common | {"rate": rate, "seed": seed} for rate, seed in product(rates, seeds)]
        missing = [key for key in wanted if self._find(key) is None]
        if missing:
            self._train(data, method, missing)
        return [row for key in wanted if (row := self._find(key)) is not None]

    def _find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        return next((row for row in self.report.rows if key.items() <= row.items()), None)

    def _train(self, data: Data, method: str, keys: Sequence[dict[str, Any]]) -> None:
        specs = [
            JobSpec(
                seed=key["seed"], epochs=key["epochs"], batch_size=key["batch_size"], learning_rate=key["rate"],
                evaluate="never", **OSORA.get(method, {}),
            )
            for key in keys
        ]  # fmt: skip
        device = torch.device(self.report.device)
        begun = time.perf_counter()
        results = self.make(method).learn(data.train, specs)
        seconds = (time.perf_counter() - begun) / len(keys)
        for key, learned in zip(keys, results, strict=True):
            if isinstance(learned, Diverged):
                self.report.add(**key, diverged=learned.reason, seconds=seconds)
                continue
            valid = evaluate(learned, data.valid, device)
            test = evaluate(learned, data.test, device)
            self.report.add(
                **key,
                **test,
                valid_loss=valid["loss"],
                valid_accuracy=valid["accuracy"],
                seconds=seconds,
                parameters=learned.parameters,
                bytes=learned.bytes,
                machine=self.report.machine.get("accelerator", self.report.machine["processor"]),
            )
        self.report.write(self.options.json)


def rates_of(dataset: str, method: str, options: Any) -> list[float]:
    """What a method tries on a dataset, from the lowest."""
    return sorted({*options.rates, *LOWER_RATES.get((dataset, method), ())})


def best_rate(dataset: str, tried: dict[float, dict[str, Any]]) -> float | None:
    """The rate that is best on the rows kept back; ties in accuracy go to the lower loss. None if all diverged."""
    finished = {rate: row for rate, row in tried.items() if "diverged" not in row}
    if not finished:
        return None
    if DATASETS[dataset].measure == "accuracy":
        return max(finished, key=lambda rate: (finished[rate]["valid_accuracy"], -finished[rate]["valid_loss"]))
    return min(finished, key=lambda rate: float(finished[rate]["valid_loss"]))


@dataclass(frozen=True)
class Result:
    """A method's best rate on a dataset. `score` is the mean over seeds, better when higher; `spread` its deviation."""

    score: float
    spread: float
    rate: float
    edge: bool
    parameters: int


def summarise(report: Report, dataset: str, options: Any) -> dict[str, Result]:
    """The best rate of every method that has finished its sweep on a dataset, printed as a table."""
    measure = DATASETS[dataset].measure
    results = {}
    print(f"\n{dataset}: {measure} of the test set, mean and deviation over {len(options.seeds)} seeds")
    for method in options.methods:
        rows = [row for row in report.rows if (row["dataset"], row["method"]) == (dataset, method)]
        best = best_rate(dataset, {row["rate"]: row for row in rows if row["seed"] == options.seeds[0]})
        if best is None:
            continue
        seeds = [row for row in rows if row["rate"] == best and "diverged" not in row]
        values = [row[measure] for row in seeds]
        mean = statistics.mean(values)
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        rates = rates_of(dataset, method, options)
        edge = best in (rates[0], rates[-1])
        seconds = statistics.mean(row["seconds"] for row in seeds)
        print(
            f"  {method:10} {mean:8.4f} +- {spread:6.4f}  rate {best:<8g}{'(edge)' if edge else '      '}"
            f"{seeds[0]['parameters']:>11,} values {seeds[0]['bytes']:>11,} bytes {seconds:8.1f} s",
            flush=True,
        )
        score = mean if measure == "accuracy" else -mean
        results[method] = Result(score, spread, best, edge, seeds[0]["parameters"])
    return results


def targets(report: Report, results: dict[str, dict[str, Result]]) -> None:
    """The lines that the comparison is about. What was not run is not met."""
    for part in ("osora-s", "osora-o"):
        gains = [
            found["osora"].score - found[part].score for found in results.values() if {"osora", part} <= set(found)
        ]
        least = min(gains, default=None)
        report.target(f"joint over {part}, least of the datasets", least, "", "> 0", least is not None and least > 0)
    ahead = None
    for found in results.values():
        if "vera-256" in found and "osora" in found:
            ours = max((found[name] for name in ("osora", "osora-256") if name in found), key=lambda r: r.score)
            vera_ = found["vera-256"]
            noise = (ours.spread**2 + vera_.spread**2) ** 0.5
            fewer = ours.parameters <= vera_.parameters
            ahead = (ahead or 0) + (fewer and ours.score - vera_.score > noise)
    report.target("datasets ahead of VeRA beyond the spread", ahead, "", ">= 2", ahead is not None and ahead >= 2)
    behind = [
        100 * (found["lora-8"].score - found["osora"].score)
        for dataset, found in results.items()
        if DATASETS[dataset].measure == "accuracy" and {"osora", "lora-8"} <= set(found)
    ]
    most = max(behind, default=None)
    report.target("points behind LoRA r=8, most of the datasets", most, "", "<= 3", most is not None and most <= 3)
    edges = sum(result.edge for found in results.values() for result in found.values())
    report.target("methods best at an edge of the grid", edges, "", "== 0", bool(results) and edges == 0)


def train(report: Report, options: Any) -> None:
    """Every run that the report has not yet."""
    torch.backends.cuda.matmul.allow_tf32 = True
    runtime = Runtime.load(
        "quality", BasisCache.default(), path=options.base, device=options.device, dtype=torch.float32, rank=BASIS_RANK
    )
    plain: Any = AutoModelForCausalLM.from_pretrained(
        base_models.resolve(options.base), dtype=torch.float32, attn_implementation=attention.NAME
    )
    plain = plain.to(runtime.device).eval()
    renderer = Renderer(runtime.tokenizer, runtime.max_length)

    def make(method: str) -> Learner:
        return Osora(runtime) if method in OSORA else Peer(plain, PEERS[method])

    sweep = Sweep(report, make, options)
    for dataset in options.datasets:
        rows = options.rows or DATASETS[dataset].rows
        data = load(options.data, dataset, renderer, rows, options.test_rows)
        for method in options.methods:
            with report.guard(dataset=dataset, method=method, rate=None, seed=None):
                sweep.method(dataset, data, method)


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--base", default="osora-tiny", help="a bundled base or a model directory")
    arguments.add_argument("--data", type=Path, help="the folder with the datasets; without it, nothing is trained")
    arguments.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    arguments.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    arguments.add_argument("--rates", nargs="+", type=float, default=RATES, help="learning rates, for every method")
    arguments.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    arguments.add_argument("--rows", type=int, help="training rows, a tenth of them kept back (default: by dataset)")
    arguments.add_argument("--test-rows", type=int, help="test rows (default: all)")
    arguments.add_argument("--epochs", type=int, help="passes over the rows (default: by dataset)")
    arguments.add_argument("--batch-size", type=int, help="rows a step (default: by dataset)")
    options = arguments.parse_args()
    warnings.filterwarnings("ignore")  # PEFT's remarks on every one of hundreds of models
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    columns = {"dataset": "10", "method": "10", "rate": "7g", "seed": "4", "loss": "8.4f", "accuracy": "8.4f"}
    report = Report(options.device, {**columns, "seconds": "8.1f", "diverged": "8"})
    if options.json is not None and options.json.exists():
        report.rows += json.loads(options.json.read_text())["rows"]
        print(f"  {len(report.rows)} runs are in {options.json} already", flush=True)
    if options.data is not None:
        train(report, options)
    targets(report, {dataset: summarise(report, dataset, options) for dataset in options.datasets})
    report.write(options.json if options.data is not None else None)


if __name__ == "__main__":
    main()
