"""Many small training jobs in one engine's steps, against the same jobs one after another, in the same run.

    python -m benchmarks.fusion
    python -m benchmarks.fusion --device cuda --layers 32 --json fusion.json

The base is that of `benchmarks.training`: osora-tiny in float32 on a CPU, a random one of Llama-8B's shapes in bfloat16
on a GPU. A job has rows, a seed and a learning rate of its own and takes `--steps` steps of `rows x tokens`; every
token counts. Of the jobs of a case the first `--alone` run by themselves, in an engine for one job; all jobs of a case
being of one size, the time for all one after another is that of these, scaled up. Fused and alone take turns for
`--repeats` rounds, and the medians are kept. `finish` is the mean time to a job's end where all were submitted at once.
`apart` is the distance of a fused adapter from the one trained alone over the latter's norm, the largest of the jobs
that were trained both ways; `most apart` the largest difference of any value. `expected` is the engine's own estimate
of the fused jobs' peak.
"""

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report import Report, parser
from benchmarks.serving_workload import random_runtime
from osora_core import attention
from osora_core.adapter import Adapter
from osora_core.basis import BasisCache
from osora_core.data import Example
from osora_core.runtime import Runtime, set_threads
from osora_core.training import (
    Checkpoint,
    Evaluation,
    JobSpec,
    Outcome,
    Progress,
    Samples,
    TrainingEngine,
    TrainingJob,
)

Case = tuple[int, int, int]
"""Jobs, rows of a job's step, tokens of a row."""

CASES: dict[str, Sequence[Case]] = {
    "cpu": ((1, 1, 32), (4, 1, 32), (16, 1, 32), (64, 1, 32), (8, 4, 64)),
    "cuda": ((1, 1, 256), (4, 1, 256), (16, 1, 256), (64, 1, 256), (16, 2, 512), (8, 4, 512)),
}
SPEED_TARGETS: dict[str, dict[Case, float]] = {
    "cpu": {(16, 1, 32): 1.5},
    "cuda": {(16, 1, 256): 9.0, (16, 2, 512): 3.0, (8, 4, 512): 1.2},
}
MANY: Case = (64, 1, 256)
RANK = 128
VOCABULARY = 4096


@dataclass
class Ending:
    """An observer that waits for a job's adapter."""

    adapter: Adapter | None = None
    finished_at: float = 0.0

    def progress(self, progress: Progress) -> None: ...

    def evaluated(self, evaluation: Evaluation) -> None: ...

    def sampled(self, samples: Samples) -> None: ...

    def stepped_down(self, pass_tokens: int) -> None: ...

    def checkpoint(self, checkpoint: Checkpoint) -> None: ...

    def finished(self, outcome: Outcome) -> None:
        self.adapter, self.finished_at = outcome.adapter, time.perf_counter()

    def failed(self, error: Exception) -> None:
        raise error


@dataclass(frozen=True)
class Run:
    """Jobs trained together: seconds to the end of all and to each one's, peak memory and its estimate, rows [P]."""

    seconds: float
    finishes: list[float]
    peak_bytes: int | None
    expected_bytes: int | None
    rows: list[Tensor]


def load(device: str, layers: int) -> Runtime:
    """The base with a basis: osora-tiny's own, or random factors."""
    if device == "cuda":
        runtime = random_runtime(layers, RANK)
        attention.register()
        runtime.model.set_attn_implementation(attention.NAME)
        return runtime
    return Runtime.load("osora-tiny", BasisCache.default(), device=device, rank=RANK)


def make_job(runtime: Runtime, number: int, case: Case, steps: int, observer: Ending) -> TrainingJob:
    """The case's job of this number: random rows, one epoch."""
    _, rows, length = case
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(0, VOCABULARY, (steps * rows, length), generator=generator).tolist()
    examples = [Example(tuple(row), (True,) * length, line) for line, row in enumerate(tokens, start=1)]
    spec = JobSpec(
        seed=number,
        epochs=1,
        batch_size=rows,
        learning_rate=0.01 * (1 + number % 3),
        rank=min(RANK, runtime.basis.rank),
    )
    return TrainingJob(str(number), spec, examples, observer)


def train(runtime: Runtime, numbers: Sequence[int], case: Case, steps: int) -> Run:
    """Train the case's jobs of these numbers together, to their ends."""
    engine = TrainingEngine(runtime, max_jobs=len(numbers))
    endings = [Ending() for _ in numbers]
    jobs = [make_job(runtime, number, case, steps, ending) for number, ending in zip(numbers, endings, strict=True)]
    _reset_peak(runtime.device)
    expected = None
    if runtime.device.type == "cuda":
        expected = torch.cuda.memory_allocated() + engine.memory.needed(jobs)
    begun = time.perf_counter()
    for job in jobs:
        engine.add(job)
    while engine.step():
        pass
    seconds = time.perf_counter() - begun
    peak = _peak(runtime.device)
    rows = [ending.adapter.to_row(runtime.basis) for ending in endings if ending.adapter is not None]
    return Run(seconds, [ending.finished_at - begun for ending in endings], peak, expected, rows)


def measure(runtime: Runtime, report: Report, case: Case, *, steps: int, alone: int, repeats: int) -> None:
    """One case's row."""
    jobs, rows, length = case
    together: list[Run] = []
    single: list[list[Run]] = []
    train(runtime, range(jobs), case, 1)  # warms up what depends on the shape
    for _ in range(repeats):
        single.append([train(runtime, [number], case, steps) for number in range(min(alone, jobs))])
        together.append(train(runtime, range(jobs), case, steps))
        gc.collect()
    one = statistics.median(run.seconds for runs in single for run in runs)
    fused = statistics.median(run.seconds for run in together)
    pairs = [(a, b.rows[0]) for a, b in zip(together[-1].rows, single[-1], strict=False)]
    tokens = jobs * rows * length * steps
    report.add(
        case=f"{jobs} of {rows}x{length}",
        jobs=jobs,
        rows=rows,
        length=length,
        fused_rate=tokens / fused,
        alone_rate=tokens / (one * jobs),
        speedup=statistics.median(
            jobs * statistics.median(run.seconds for run in runs) / run.seconds
            for runs, run in zip(single, together, strict=True)
        ),
        fused_finish=statistics.mean(together[-1].finishes),
        alone_finish=one * (jobs + 1) / 2,
        expected_gib=_gib(together[-1].expected_bytes),
        fused_gib=_gib(together[-1].peak_bytes),
        alone_gib=_gib(single[-1][0].peak_bytes),
        apart=max(float((a - b).norm() / b.norm()) for a, b in pairs),
        most_apart=max(float((a - b).abs().max()) for a, b in pairs),
    )


def targets(report: Report, layers: int) -> None:
    """Speed against one after another; a base of fewer layers than Llama-8B's has its line, but meets nothing."""
    found = {(r["jobs"], r["rows"], r["length"]): r["speedup"] for r in report.rows if "failed" not in r}
    whole = report.device == "cpu" or layers == 32
    for device, wanted in SPEED_TARGETS.items():
        for case, limit in wanted.items():
            speedup = found.get(case) if report.device == device else None
            met = speedup is not None and speedup >= limit and whole
            name = "{} jobs of {}x{} tokens over one after another on {}".format(*case, device)
            report.target(name, speedup, "x", f">= {limit:g}", met)
    many = [ratio for (jobs, _, _), ratio in found.items() if jobs > 1]
    least = min(many) if many and report.device == "cpu" else None
    report.target("the least gain of any case on cpu", least, "x", ">= 1", least is not None and least >= 1)
    fit = report.device == "cuda" and whole
    report.target(
        "jobs of 1x256 tokens that fit",
        MANY[0] if fit and MANY in found else None,
        "jobs",
        ">= 64",
        fit and MANY in found,
    )


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif (clear := Path("/proc/self/clear_refs")).exists():
        clear.write_text("5")


def _peak(device: torch.device) -> int | None:
    """Bytes that were allocated on the GPU, or resident in this process, at most since the reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _gib(count: int | None) -> float | None:
    return None if count is None else count / 2**30


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--layers", type=int, default=32, help="decoder layers of the base on a GPU (default: 32)")
    arguments.add_argument("--steps", type=int, default=3, help="steps of every job (default: 3)")
    arguments.add_argument("--alone", type=int, default=4, help="jobs of a case that also run alone (default: 4)")
    arguments.add_argument("--repeats", type=int, default=2, help="rounds of a case (default: 2)")
    options = arguments.parse_args()
    set_threads()
    report = Report(
        options.device,
        {
            "case": "14",
            "fused_rate": "10.0f",
            "alone_rate": "10.0f",
            "speedup": "7.2f",
            "fused_finish": "12.2f",
            "alone_finish": "12.2f",
            "expected_gib": "12.2f",
            "fused_gib": "9.2f",
            "alone_gib": "9.2f",
            "apart": "9.2g",
            "most_apart": "10.2g",
        },
    )
    runtime = load(options.device, options.layers)
    for case in CASES[options.device]:
        jobs, rows, length = case
        with report.guard(case=f"{jobs} of {rows}x{length}", jobs=jobs, rows=rows, length=length):
            measure(runtime, report, case, steps=options.steps, alone=options.alone, repeats=options.repeats)
    targets(report, options.layers)
    report.write(options.json)


if __name__ == "__main__":
    main()
