"""A learning-rate sweep against a single run of the same job, in one engine, and whether it finds the best rate.

    python -m benchmarks.sweep [--method dpo] [--json PATH]
    python -m benchmarks.sweep --device cuda [--layers 8] [--method dpo] [--json PATH]

On a CPU the base is osora-tiny and the rows are support tickets; on a GPU a random base with Llama-8B's shapes, which a
single job of one random row of 256 tokens a step leaves idle. For dpo each row is preferred to the next one.
Ratios are medians over repeats that measure both sides. Then every member trains alone to its end: the regret is what
the loss of the chosen one is above the lowest, in nats.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.learners import Ending
from benchmarks.report import Report, parser
from benchmarks.serving_workload import load_runtime, random_runtime
from osora_common.hyperparameters import ENOUGH_TO_CHOOSE, sweep_specs
from osora_core.data import Example, Preference, Renderer, Row, read_examples, read_preferences, rows_of
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, Sweep, SweepOutcome, TrainingEngine, TrainingJob
from osora_core.training.errors import JobTooShort
from osora_core.training.evaluation import mean_losses
from osora_core.training.throughput import CHEAP

TICKETS = Path(__file__).parents[1] / "examples" / "support-tickets"
COLUMNS = {
    "case": "12",
    "learning_rate": "13.3g",
    "sigma_rate": "10.2g",
    "steps": "6d",
    "seconds": "9.2f",
    "ratio": "7.2f",
    "loss": "8.4f",
}
RANDOM_TOKENS = 256
TOKEN_BUDGET = {"cpu": 8192, "cuda": 65536}


class Benchmark:
    """The base, the rows, and one engine for everything."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        if options.device == "cuda" and options.base is None:
            self.runtime: Runtime = random_runtime(options.layers, options.rank)
            self.train, self.choice = (
                random_rows(count, seed, options.method) for seed, count in enumerate((options.rows, ENOUGH_TO_CHOOSE))
            )
        else:
            self.runtime = load_runtime(options.base or "osora-tiny", options.device, folder, None)
            self.train, self.choice = (tickets(self.runtime, name, options.method) for name in ("train", "valid"))
            self.train, self.choice = self.train[: options.rows], self.choice[: max(4, options.rows // 4)]
        rank = min(options.rank, self.runtime.basis.rank)
        spec = JobSpec(
            epochs=options.epochs, batch_size=options.batch_size, rank=rank, evaluate="never", method=options.method
        )
        self.specs = sweep_specs(spec, {"learning_rate": "sweep"}, at_most=8)
        self.engine = TrainingEngine(self.runtime, max_jobs=len(self.specs), token_budget=TOKEN_BUDGET[options.device])
        self.options = options
        self.report = Report(options.device, COLUMNS)

    def run(self) -> None:
        first, members = self.specs[0], len(self.specs)
        job = self.job(first)
        with suppress(JobTooShort):  # "auto" does not measure then
            *_, estimate = self.engine.throughput.cost_of_sweep(job, members, self.choice)
            self.add("estimate", first, ratio=estimate)  # what "auto" decides by; where that is against, a lower bound
        self.engine.add(job)
        self.engine.step()  # once, so that nothing is compiled while it is measured
        self.engine.discard(job)
        ratios = []
        for _ in range(self.options.repeats):
            single = self.alone(first)
            self.add("single", first, seconds=single)
            started = time.perf_counter()
            chosen = self.sweep().spec
            seconds = time.perf_counter() - started
            ratios.append(seconds / single)
            self.add(f"sweep of {members}", chosen, seconds=seconds, ratio=ratios[-1])
        self.report.target("sweep over single", median(ratios), "times", f"<= {CHEAP}", median(ratios) <= CHEAP)
        if self.options.regret:
            self.regret(chosen)

    def regret(self, chosen: JobSpec) -> None:
        losses = {}
        for spec in self.specs:
            seconds = self.alone(spec)
            losses[spec] = self.loss()
            self.add("alone", spec, seconds=seconds, loss=losses[spec])
        self.add("regret", chosen, loss=losses[chosen] - min(losses.values()))

    def job(self, spec: JobSpec) -> TrainingJob:
        self.ending = Ending()
        return TrainingJob("benchmark", spec, self.train, self.ending)

    def alone(self, spec: JobSpec) -> float:
        """Seconds that a member takes by itself."""
        started = time.perf_counter()
        self.engine.add(self.job(spec))
        self.drive()
        return time.perf_counter() - started

    def sweep(self) -> SweepOutcome:
        job = self.job(self.specs[0])
        Sweep(job, self.specs, self.choice, self.ending).join(self.engine)
        self.drive()
        assert isinstance(self.ending.outcome, SweepOutcome)
        return self.ending.outcome

    def drive(self) -> None:
        while self.engine.step():
            pass
        if self.ending.error is not None:
            raise self.ending.error

    def loss(self) -> float:
        """Of what the last job left, on the rows that the sweep chooses by."""
        adapter, bank = self.ending.outcome.adapter, self.engine.bank
        slot = bank.acquire()
        bank.write(slot, adapter.to_row(bank.basis), adapter.rank, adapter.mix_size)
        (loss,) = mean_losses(self.job(self.specs[0]), self.choice, [slot], self.engine.passes)
        bank.release(slot)
        return loss

    def add(self, case: str, spec: JobSpec, **measured: float) -> None:
        self.report.add(
            case=case, learning_rate=spec.learning_rate, sigma_rate=spec.sigma_rate, steps=self.job(spec).total_steps,
            members=len(self.specs), rows=len(self.train), **measured,
        )  # fmt: skip


def tickets(runtime: Runtime, name: str, method: str) -> Sequence[Row]:
    data = (TICKETS / f"{name}.jsonl").read_bytes()
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    if method == "supervised":
        return read_examples(rows_of(data), renderer)
    talks = [row.value["messages"] for row in rows_of(data)]
    pairs = (
        {"input": {"messages": asked}, "preferred_output": [answer], "non_preferred_output": [following[-1]]}
        for (*asked, answer), following in zip(talks, talks[1:] + talks[:1], strict=True)
    )
    return read_preferences(rows_of("\n".join(map(json.dumps, pairs)).encode()), renderer)


def random_rows(count: int, seed: int, method: str) -> Sequence[Row]:
    """Rows that a GPU takes as long for as for any of their length."""
    random = Random(seed)
    mask = (False,) * (RANDOM_TOKENS // 2) + (True,) * (RANDOM_TOKENS // 2)
    rows = [Example(tuple(random.randrange(256) for _ in range(RANDOM_TOKENS)), mask, line) for line in range(count)]
    if method == "supervised":
        return rows
    return [Preference(row, following, row.line) for row, following in zip(rows, rows[1:] + rows[:1], strict=True)]


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--method", choices=("supervised", "dpo"), default="supervised", help="(default: %(default)s)"
    )
    arguments.add_argument("--base", help="instead of osora-tiny, or on a GPU of the random base")
    arguments.add_argument("--layers", type=int, default=32, help="of the random base (default: %(default)s)")
    arguments.add_argument("--rank", type=int, default=128, help="of adapters and basis (default: %(default)s)")
    arguments.add_argument("--rows", type=int, default=48, help="to train on (default: %(default)s)")
    arguments.add_argument("--epochs", type=int, help="(default: 2, on a GPU 4)")
    arguments.add_argument("--batch-size", type=int, help="(default: 4, on a GPU 1)")
    arguments.add_argument("--repeats", type=int, default=2, help="of single and sweep (default: %(default)s)")
    arguments.add_argument("--no-regret", dest="regret", action="store_false", help="do not train the members alone")
    options = arguments.parse_args()
    on_gpu = options.device == "cuda"
    options.batch_size = options.batch_size or (1 if on_gpu else 4)
    options.epochs = options.epochs or (4 if on_gpu else 2)
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(options, Path(folder))
        try:
            benchmark.run()
        finally:
            benchmark.report.write(options.json)


if __name__ == "__main__":
    main()
