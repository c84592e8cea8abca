"""What `make demo` runs: a real service on this machine, one fine-tuning job, and what it changed.

With the name of a base (`make demo BASE=smollm2-135m`, or `NAME=SOURCE`), that base is added to the running service and
trained instead of the small one that comes along.

Everything goes through the Python SDK, which is plain HTTP: any client can do the same. The data is in
support-tickets/: a customer's message in, a JSON triage {"queue", "priority", "product"} out.
"""

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from osora import Osora, OsoraError
from osora.cli.adding import follow_base
from osora.cli.output import human_bytes
from osora.cli.watch import valid_losses, watch
from osora.serve.run import is_served
from osora.serve.spawn import spawn

TINY = "osora-tiny"
DATA = Path(__file__).parent / "support-tickets"
DEMO = Path(".demo").absolute()
DATA_DIR = DEMO / "data"
REQUESTS_IN_FLIGHT = 32
MAX_TOKENS = 48
SHOWN = 4
SAMPLE_SEED = 0

Rows = list[dict[str, Any]]
console = Console(highlight=False)


@dataclass(frozen=True)
class Base:
    """What is trained, how, and the exact match to reach: of a base that is not ours, better than it was."""

    name: str = TINY
    source: str | None = None
    hyperparameters: dict[str, Any] = field(default_factory=lambda: {"n_epochs": 4, "batch_size": 4})
    knobs: dict[str, Any] = field(default_factory=lambda: {"rank": 128, "learning_rate": 0.03})
    target: float = 0.7

    @classmethod
    def of(cls, words: list[str]) -> "Base":
        """As the command line has it: nothing, `NAME` or `NAME=SOURCE`."""
        name, _, source = (words[0] if words else TINY).partition("=")
        if name == TINY:
            return cls()
        # A base that has learned much needs few rows, and a large one takes long for each.
        return cls(name, source or None, {"n_epochs": 1, "batch_size": 8}, {"rank": 128, "learning_rate": 0.02}, 0.0)

    def is_reached(self, before: float, after: float) -> bool:
        """Whether the demonstration has shown what it is for."""
        return after >= self.target if self.name == TINY else after > before


class DemoFailedError(Exception):
    """A stage did not do what it should; the message says which."""


class Stages:
    """Names and times what happens."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        console.print(f"\n[bold]{name}[/bold]")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)


@contextmanager
def service(stage: Stages) -> Iterator[Osora]:
    """`osora serve` on a fresh data directory; yields a client of it, and leaves no process behind."""
    if is_served(DATA_DIR):
        raise DemoFailedError(f"an `osora serve` runs on {DATA_DIR}; stop that one first")
    shutil.rmtree(DATA_DIR, ignore_errors=True)
    DATA_DIR.mkdir(parents=True)
    own = {name: value for name, value in os.environ.items() if not name.startswith("OSORA_")}
    env = {**own, "OSORA_BASES": TINY, "OSORA_DATA_DIR": str(DATA_DIR)}
    command = [sys.executable, "-P", "-m", "osora", "serve", "--json"]
    # Should this program be killed outright, the kernel tells the service to stop.
    server = spawn(command, env=env, stdout=subprocess.PIPE, death_signal=signal.SIGTERM)
    try:
        with stage("Starting the service"):
            url = wait_until_ready(server)
        with Osora(url, (DATA_DIR / "local.key").read_text().strip()) as osora:
            yield osora
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stopping
        with stage("Stopping the service"):
            server.terminate()
            server.communicate()


def wait_until_ready(server: subprocess.Popen[bytes]) -> str:
    """Show the service's progress; returns its URL."""
    assert server.stdout is not None
    for line in server.stdout:
        notice = json.loads(line)
        if notice["event"] == "ready":
            return str(notice["url"])
        console.print(f"  {notice['message']}", markup=False, soft_wrap=True)
    raise DemoFailedError("the service did not start")


def add(osora: Osora, base: Base) -> None:
    """Add a base to the running service, and wait until it can be trained and called."""
    osora.bases.add(base.name, base.source)
    try:
        follow_base(osora, base.name, as_json=False)
    except typer.Exit as end:  # which has said why
        raise DemoFailedError(f"the base {base.name} cannot be used") from end


def train(osora: Osora, base: Base) -> tuple[str, list[float]]:
    """Upload, queue, watch; returns the adapter's id and the validation losses, the bare base's first."""
    training = osora.files.upload(DATA / "train.jsonl")
    validation = osora.files.upload(DATA / "valid.jsonl")
    job = osora.jobs.create(
        base.name,
        training["id"],
        validation_file=validation["id"],
        suffix="tickets",
        seed=1,
        hyperparameters=base.hyperparameters,
        osora=base.knobs,
    )
    job, events = watch(osora, job["id"], console)
    if job["status"] != "succeeded":
        raise DemoFailedError(f"the job {job['status']}: {(job.get('error') or {}).get('message')}")
    losses = valid_losses(events)
    if len(losses) < 2:
        raise DemoFailedError("the job reported no validation loss before and after")
    adapter_id = job["osora"]["adapter_id"]
    assert adapter_id is not None
    return adapter_id, losses


def answers(osora: Osora, rows: Rows, base: Base, adapter: str | None) -> list[str]:
    """What the base, or the adapter, answers to each row's message; many requests at once."""

    def ask(row: dict[str, Any]) -> str:
        question = [message for message in row["messages"] if message["role"] != "assistant"]
        asked = {"adapter": adapter} if adapter else {"base": base.name}
        return osora.generate(question, **asked, max_tokens=MAX_TOKENS, temperature=0)["text"]

    pool = ThreadPoolExecutor(REQUESTS_IN_FLIGHT)
    try:
        return list(pool.map(ask, rows))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def is_right(row: dict[str, Any], text: str) -> bool:
    """Whether an answer is the expected JSON object."""
    return parsed(text) == parsed(expected(row))


def exact_match(rows: Rows, texts: list[str]) -> float:
    """The share of answers that are right."""
    return sum(map(is_right, rows, texts)) / len(rows)


def fair_sample(right: list[bool], count: int) -> list[int]:
    """`count` places, drawn by chance (always the same), with as many right ones among them as there are in all."""
    chance = random.Random(SAMPLE_SEED)
    places = {kind: [place for place, is_right in enumerate(right) if is_right == kind] for kind in (True, False)}
    right_ones = round(count * len(places[True]) / len(right))
    drawn = chance.sample(places[True], right_ones) + chance.sample(places[False], count - right_ones)
    return sorted(drawn)


def expected(row: dict[str, Any]) -> str:
    return str(row["messages"][-1]["content"])


def parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def show_side_by_side(rows: Rows, before: list[str], after: list[str]) -> None:
    """A few rows, the adapter's right and wrong answers in proportion."""
    right = list(map(is_right, rows, after))
    shown = fair_sample(right, SHOWN)
    title = f"{SHOWN} of {len(rows)} rows, drawn by chance; of all, the adapter has {sum(right)} right"
    table = Table(show_lines=True, title=title, title_justify="left")
    for column in ("message", "bare base", "adapter", "expected"):
        table.add_column(column, overflow="fold", ratio=1)
    table.add_column("")
    for i in shown:
        cells = (rows[i]["messages"][0]["content"], before[i], after[i], expected(rows[i]))
        verdict = "right" if right[i] else "[red]wrong[/red]"
        table.add_row(*(cell.replace("[", "\\[") for cell in cells), verdict)
    console.print(table)


def show_figures(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['rows']['valid']} rows that were not trained on", title_justify="left")
    for column in ("", "bare base", "adapter"):
        table.add_column(column)
    loss, match = report["loss"], report["exact_match"]
    table.add_row("loss (nats a token)", f"{loss['before']:.3f}", f"{loss['after']:.3f}")
    table.add_row("exact match", f"{match['before']:.0%}", f"{match['after']:.0%}")
    table.add_row("size", human_bytes(report["base_bytes"]), human_bytes(report["adapter_bytes"]))
    console.print(table)
    console.print("Seconds: " + " · ".join(f"{name} {took:.1f}" for name, took in report["stages"].items()))


def run(base: Base) -> dict[str, Any]:
    """The demonstration; returns its report."""
    train_rows, valid_rows = (
        [json.loads(line) for line in (DATA / name).read_text().splitlines()] for name in ("train.jsonl", "valid.jsonl")
    )
    stage = Stages()
    with service(stage) as osora:
        if base.name != TINY:
            with stage(f"Adding the base {base.name}"):
                add(osora, base)
        with stage("Training"):
            adapter_id, losses = train(osora, base)
        with stage("Asking the bare base"):
            before = answers(osora, valid_rows, base, adapter=None)
        with stage("Asking the adapter"):
            after = answers(osora, valid_rows, base, adapter=adapter_id)
        adapter = osora.adapters.get(adapter_id)
        held = next(one for one in osora.bases.list() if one["name"] == base.name)
        report = {
            "stages": stage.seconds,
            "loss": {"before": losses[0], "after": losses[-1]},
            "exact_match": {
                "before": exact_match(valid_rows, before),
                "after": exact_match(valid_rows, after),
            },
            "adapter_bytes": adapter["bytes"],
            "base_bytes": held["bytes"],
            "base": base.name,
            "adapter": adapter["name"],
            "rows": {"train": len(train_rows), "valid": len(valid_rows)},
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "device": held["device"],
            },
        }
        show_side_by_side(valid_rows, before, after)
        show_figures(report)
    return report


def log_tail() -> str:
    """The last lines of every log of the service."""
    logs = sorted((DATA_DIR / "logs").glob("*.log"))
    return "\n".join(f"--- {log}\n" + "\n".join(log.read_text().splitlines()[-8:]) for log in logs)


def main() -> int:
    try:
        base = Base.of(sys.argv[1:])
        report = run(base)
    except (DemoFailedError, OsoraError) as error:
        console.print(f"\n{log_tail()}\n\nThe demo failed: {error}", markup=False, soft_wrap=True)
        return 1
    (DEMO / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    before, after = (report["exact_match"][when] for when in ("before", "after"))
    if not base.is_reached(before, after):
        least = f"below {base.target}" if base.name == TINY else f"not above the bare base's {before:.2f}"
        console.print(f"The demo failed: exact match {after:.2f} is {least}.")
        return 1
    console.print(
        f"\nFigures: {DEMO / 'report.json'}\n\n"
        "Next, the same service with the adapter that you have just made:\n"
        f"  export OSORA_DATA_DIR={DATA_DIR}\n"
        "  .venv/bin/osora serve\n"
        "and in another terminal (with the same export):\n"
        f'  .venv/bin/osora generate "My speaker went to the wrong address." --adapter {report["adapter"]}\n'
        "  .venv/bin/osora train YOUR.jsonl",
        markup=False,
        soft_wrap=True,
    )
    return 0


def as_a_program(main: Callable[[], int]) -> NoReturn:
    """End with what `main` gives, or as programs do that are terminated or interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("Interrupted; nothing is left running.")
        sys.exit(130)


if __name__ == "__main__":
    as_a_program(main)
