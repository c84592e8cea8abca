"""How long a tenant waits: from POST to the first training loss, and from POST to an adapter that answers.

    python -m benchmarks.service
    python -m benchmarks.service --json service.json

The service is the real one: `osora serve`, started on a data directory of its own, with osora-tiny and its default
settings. Every submitter is a thread with a client of its own, which posts a job of two epochs over 32 short rows,
follows its event stream as any client does, asks the first checkpoint that it hears of, and at the end the adapter. One
submitter posts job after job; with 16 each posts at the same moment, and as many as the worker has slots for train
together while the others wait. One job goes before, unmeasured: the worker is warm.

All times run on the client's clock. An event is seen up to 0.3 s after it was written: that is how often the API looks.
`checkpoint` is from a checkpoint's event to its first answer.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Report, parser
from osora import Osora

COLUMNS = {"submitters": "10d", "jobs": "5d", "what": "12", "median": "8.3f", "p95": "8.3f", "worst": "8.3f"}
LOSS_TARGET, CHECKPOINT_TARGET = 1.0, 1.0
_ROWS, _BATCH_SIZE, _EPOCHS = 32, 8, 2
_QUESTION = "Ticket 3: my parcel is late."


@dataclass(frozen=True)
class Waits:
    """Seconds of one job: from its POST to the first loss and to the adapter's first answer, and a checkpoint's."""

    first_loss: float
    adapter: float
    checkpoint: float


@dataclass(frozen=True)
class Service:
    """A running one: its address, the key that has every scope, and the process that the others are children of."""

    url: str
    key: str
    pid: int


@contextmanager
def serving(data_dir: Path, **environment: str) -> Iterator[Service]:
    """A running service with its default settings, but for those in `environment`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OSORA_")}
    command = [sys.executable, "-P", "-m", "osora", "serve", "--json"]
    env = {**own, "OSORA_DATA_DIR": str(data_dir), **environment}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            notices = map(json.loads, server.stdout)
            url = next((str(notice["url"]) for notice in notices if notice["event"] == "ready"), None)
            if url is None:
                sys.exit("the service did not start; `osora serve` says why")
            yield Service(url, (data_dir / "local.key").read_text().strip(), server.pid)
        finally:
            server.terminate()
            server.communicate()


def dataset(path: Path) -> Path:
    """Short rows, of which the answers can be learned."""
    kinds = ("shipping", "billing", "login", "other")
    with path.open("w") as file:
        for index in range(_ROWS):
            kind = kinds[index % len(kinds)]
            messages = [
                {"role": "user", "content": f"Ticket {index}: something about {kind}."},
                {"role": "assistant", "content": f"category: {kind}"},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def wait_for(osora: Osora, file_id: str) -> Waits:
    """Post a job and follow it to an adapter that answers."""

    def answered(name: str) -> float:
        osora.generate([{"role": "user", "content": _QUESTION}], adapter=name, max_tokens=8)
        return time.perf_counter()

    posted = time.perf_counter()
    job = osora.jobs.create(
        "osora-tiny", file_id, hyperparameters={"n_epochs": _EPOCHS, "batch_size": _BATCH_SIZE}, seed=1
    )
    first_loss = checkpoint = None
    for event in osora.jobs.events(job["id"]):
        now = time.perf_counter()
        data = event.get("data") or {}
        if first_loss is None and "train_loss" in data:
            first_loss = now - posted
        elif checkpoint is None and event["message"].startswith("Checkpoint created"):
            checkpoint = answered(data["model"]) - now
    ended = osora.jobs.get(job["id"])
    if ended["status"] != "succeeded" or first_loss is None or checkpoint is None:
        raise RuntimeError(f"job {job['id']} is {ended['status']}: {ended.get('error')}")
    return Waits(first_loss, answered(str(ended["fine_tuned_model"])) - posted, checkpoint)


def measure(url: str, key: str, file_id: str, submitters: int, jobs: int) -> list[Waits]:
    """The waits of `jobs` jobs, of so many submitters at a time; every round begins at one moment for all of them."""
    barrier = threading.Barrier(submitters)

    def submit(_: int) -> list[Waits]:
        found = []
        with Osora(url, key) as osora:
            osora.health()  # connected
            for _ in range(jobs // submitters):
                barrier.wait()
                found.append(wait_for(osora, file_id))
        return found

    with ThreadPoolExecutor(submitters) as pool:
        return [waits for found in pool.map(submit, range(submitters)) for waits in found]


def report_on(report: Report, submitters: int, waits: list[Waits]) -> dict[str, float]:
    """A row for each kind of wait; the medians."""
    medians = {}
    for what in ("first_loss", "adapter", "checkpoint"):
        seconds = sorted(getattr(wait, what) for wait in waits)
        medians[what] = statistics.median(seconds)
        report.add(
            submitters=submitters,
            jobs=len(waits),
            what=what,
            median=medians[what],
            p95=seconds[round(0.95 * (len(seconds) - 1))],
            worst=seconds[-1],
            seconds=seconds,
        )
    return medians


def main() -> None:
    """The command."""
    options = parser(__doc__, devices=("cpu",))
    options.add_argument("--jobs", type=int, default=16, help="jobs for each row (default: %(default)s)")
    options.add_argument("--submitters", type=int, default=16, help="at once in the second part (default: %(default)s)")
    arguments = options.parse_args()
    if arguments.jobs % arguments.submitters:
        options.error(f"--jobs {arguments.jobs} is not a multiple of --submitters {arguments.submitters}")
    report = Report("cpu", COLUMNS)
    with tempfile.TemporaryDirectory(prefix="osora-service-") as folder, serving(Path(folder, "data")) as service:
        url, key = service.url, service.key
        with Osora(url, key) as osora:
            file_id = osora.files.upload(dataset(Path(folder, "rows.jsonl")))["id"]
            wait_for(osora, file_id)
        medians = report_on(report, 1, measure(url, key, file_id, 1, arguments.jobs))
        crowd = measure(url, key, file_id, arguments.submitters, arguments.jobs)
        report_on(report, arguments.submitters, crowd)
    for name, what, target in (
        ("POST to first loss, one submitter", "first_loss", LOSS_TARGET),
        ("checkpoint's event to its first answer", "checkpoint", CHECKPOINT_TARGET),
    ):
        value = medians[what]
        report.target(name, value, "s", f"<= {target:g}", value <= target)
    report.write(arguments.json)


if __name__ == "__main__":
    main()
