"""Time of the demo's training job, here and in another checkout: the two take turns in one run.

    python -m benchmarks.demo_training
    python -m benchmarks.demo_training --against ../other-checkout --epochs 4 --seeds 1 2 3 --json demo.json

The job is the one of `make demo` (osora-tiny, rank 128, 4 rows a step, validated at every epoch's end) in the training
engine alone, without the service around it. Each checkout has a process of its own. They take turns after every
`--turn` steps, so that a machine whose speed changes is as fast for one as for the other, and whoever does not run
waits without computing. A step's time is the median; the ratio is that of all seconds of one checkout over the other's.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
DATA = HERE / "examples" / "support-tickets"
TIME_TARGET, MATCH_TARGET = 0.6, 0.7


class Learner:
    """A checkout's process: `ask` has it take a turn and returns what that took."""

    def __init__(self, checkout: Path, seed: int, epochs: int, cache: str) -> None:
        self.checkout = checkout
        command = [sys.executable, "-P", __file__, "--learn", str(seed), str(epochs), cache]
        # What `osora serve` sets for its worker.
        env = {"GOMP_SPINCOUNT": "1000", **os.environ, "PYTHONPATH": str(checkout)}
        self._process = subprocess.Popen(
            command, cwd=checkout, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.ready: dict[str, Any] = self._read()
        self.turns: list[dict[str, Any]] = []

    def ask(self, steps: int) -> bool:
        """Take up to `steps` steps; False once the job has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n".encode())
        self._process.stdin.flush()
        self.turns.append(self._read())
        return not self.turns[-1]["ended"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.checkout} ended; see: python benchmarks/demo_training.py --learn")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def learn(seed: int, epochs: int, cache: str) -> None:
    """The process of one checkout: a line of figures for each line with a number of steps."""
    from osora_core.basis import BasisCache
    from osora_core.data import Renderer, read_examples, rows_of
    from osora_core.runtime import Runtime, set_threads
    from osora_core.training import JobSpec, TrainingEngine, TrainingJob

    class Notes:
        """An observer that keeps the evaluations."""

        def __init__(self) -> None:
            self.evaluations: list[Any] = []
            self.failure: Exception | None = None

        def evaluated(self, evaluation: Any) -> None:
            self.evaluations.append(evaluation)

        def failed(self, error: Exception) -> None:
            self.failure = error

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    set_threads()
    runtime = Runtime.load("osora-tiny", BasisCache(Path(cache)), device="cpu", rank=128)
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    train, valid = (
        read_examples(rows_of((DATA / name).read_bytes()), renderer) for name in ("train.jsonl", "valid.jsonl")
    )
    notes, engine = Notes(), TrainingEngine(runtime, max_jobs=8)
    spec = JobSpec(seed=seed, epochs=epochs, batch_size=4, learning_rate=0.03, rank=128)
    job: Any = TrainingJob("demo", spec, train, notes, valid=valid)
    engine.add(job)
    print(json.dumps({"total": job.total_steps, "validation_rows": len(valid)}), flush=True)
    for line in sys.stdin:
        seconds, evaluating, tokens, used = [], 0.0, job.trained_tokens, _cpu_seconds()
        for _ in range(int(line)):
            seen, begun = len(notes.evaluations), time.perf_counter()
            engine.step()
            taken = time.perf_counter() - begun
            if len(notes.evaluations) == seen:
                seconds.append(taken)
            else:  # a step that ends an epoch, or begins the job, and the evaluation that it brings
                evaluating += taken
            if not engine.jobs:
                break
        if notes.failure is not None:
            raise notes.failure
        last = notes.evaluations[-1]
        print(
            json.dumps({
                "seconds": seconds,
                "evaluating": evaluating,
                "cpu": _cpu_seconds() - used,
                "tokens": job.trained_tokens - tokens,
                "ended": not engine.jobs,
                "loss": last.loss,
                "exact_match": last.exact_match,
            }),
            flush=True,
        )  # fmt: skip


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def learners(checkouts: list[Path], seed: int, epochs: int) -> Iterator[list[Learner]]:
    """One for each checkout, loaded."""
    with ExitStack() as stack:
        made = []
        for checkout in checkouts:
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            made.append(Learner(checkout, seed, epochs, cache))
            stack.callback(made[-1].close)
        yield made


def race(checkouts: list[Path], seed: int, epochs: int, turn: int, steps: int | None) -> list[dict[str, Any]]:
    """The figures of each checkout; after `steps` steps, or where the job ends."""
    with learners(checkouts, seed, epochs) as ready:
        done = False
        while not done:
            # Whoever was second is first the next time.
            for learner in ready[:: 1 if len(ready[0].turns) % 2 == 0 else -1]:
                done = not learner.ask(turn)
            done = done or (steps is not None and len(ready[0].turns) * turn >= steps)
        return [_figures(learner) for learner in ready]


def _figures(learner: Learner) -> dict[str, Any]:
    steps = [second for turn in learner.turns for second in turn["seconds"]]
    evaluating = sum(turn["evaluating"] for turn in learner.turns)
    total = sum(steps) + evaluating
    last = learner.turns[-1]
    return {
        "checkout": "here" if learner.checkout == HERE else "other",
        "ms_a_step": 1e3 * statistics.median(steps),
        "evaluating": evaluating,
        "seconds": total,
        "cpu_seconds": sum(turn["cpu"] for turn in learner.turns),
        "tokens_a_second": sum(turn["tokens"] for turn in learner.turns) / total,
        "loss": last["loss"],
        "exact_match": last["exact_match"],
        "ended": last["ended"],
    }


def targets(report: Any) -> None:
    """What the other checkout is compared by: all seconds, and quality where jobs ran to their end."""
    own, others = ([row for row in report.rows if row["checkout"] == which] for which in ("here", "other"))
    whole = all(row["ended"] and row["epochs"] == 4 for row in report.rows)
    for key, name in (("seconds", "training time over the other checkout's"), ("cpu_seconds", "CPU time over its")):
        ratio = sum(r[key] for r in own) / sum(r[key] for r in others) if others else None
        report.target(name, ratio, "x", f"<= {TIME_TARGET:g}", ratio is not None and ratio <= TIME_TARGET)
    match = statistics.mean(row["exact_match"] for row in own) if whole else None
    report.target("mean exact match", match, "", f">= {MATCH_TARGET:g}", match is not None and match >= MATCH_TARGET)
    if others:
        gain = None if match is None else match - statistics.mean(row["exact_match"] for row in others)
        report.target("exact match above the other's", gain, "", ">= 0", gain is not None and gain >= 0)


def main() -> None:
    """The command."""
    from benchmarks.report import Report, parser

    arguments: argparse.ArgumentParser = parser(__doc__, devices=("cpu",))
    arguments.add_argument("--against", type=Path, metavar="PATH", help="another checkout, which takes turns")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1], help="a job for each (default: 1)")
    arguments.add_argument("--epochs", type=int, default=4, help="of a job (default: 4, as in the demo)")
    arguments.add_argument("--steps", type=int, help="end jobs early: time alone is measured")
    arguments.add_argument("--turn", type=int, default=20, help="steps between turns (default: 20)")
    options = arguments.parse_args()
    columns = {"checkout": "8", "seed": "4", "ms_a_step": "9.1f", "evaluating": "10.2f", "seconds": "8.1f"}
    columns |= {"cpu_seconds": "11.1f", "tokens_a_second": "15.0f", "loss": "6.3f", "exact_match": "11.3f"}
    report = Report(options.device, columns)
    checkouts = [HERE] + ([options.against.resolve()] if options.against else [])
    for seed in options.seeds:
        for row in race(checkouts, seed, options.epochs, options.turn, options.steps):
            report.add(seed=seed, epochs=options.epochs, **row)
    targets(report)
    report.write(options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--learn"]:
        learn(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main()
