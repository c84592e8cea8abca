"""What open pages cost the API: its answers' times with none and with fifty, taking turns in one run.

    python -m benchmarks.console
    python -m benchmarks.console --pages 50 --seconds 20 --rounds 3

An `osora serve` of its own, with a console and, all the time, a job that trains. A page is what a browser keeps of it:
signed in, its HTML fetched, its socket open; half of them show the list of jobs, half the job, and both move with it.
The API is asked for a list, one call after another. Before each turn without pages whoever looked has signed out, which
ends their pages. The console's memory is what its process holds at the end of a turn (RSS), its cores are those that it
kept busy in it.
"""

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil
import socketio

from benchmarks.report import Report, parser
from benchmarks.service import Service, dataset, serving
from osora import Osora
from osora.serve.console_link import issue

TARGET = 1.5
_COLUMNS = {"pages": "6", "calls": "6", "p50_ms": "8.1f", "p99_ms": "8.1f", "console_mib": "12.0f", "cores": "6.2f"}
_CLIENT_ID = re.compile(r"""["']client_id["']: ?["']([\w-]+)["']""")
_NEXT_MESSAGE = re.compile(r"""["']next_message_id["']: ?(\d+)""")
_ACKNOWLEDGE_SECONDS = 3
# What pages fetch when they open, or let go when they end, is not what they cost while they are open.
_REST_SECONDS = 3


@dataclass
class Turns:
    """What was measured in all turns of one kind."""

    times: list[float] = field(default_factory=list)
    mebibytes: float = 0.0
    cores: list[float] = field(default_factory=list)


@asynccontextmanager
async def signed_in(folder: Path, console: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is signed in, and signs out at the end of the block."""
    headers = {"accept": "text/html", "origin": console}
    async with httpx.AsyncClient(base_url=console, headers=headers, timeout=60) as client:
        answer = await client.get(issue(folder, console))
        assert answer.status_code == 303, answer.text
        try:
            yield client
        finally:
            await client.post("/sign-out")


@asynccontextmanager
async def open_page(client: httpx.AsyncClient, console: str, path: str) -> AsyncIterator[None]:
    """A page with its socket, until the end of the block."""
    html = (await client.get(path)).raise_for_status().text
    client_id, newest = _said(html, _CLIENT_ID), int(_said(html, _NEXT_MESSAGE))
    socket = socketio.AsyncClient(reconnection=False)

    async def received(_: str, message: Any) -> None:
        nonlocal newest
        newest = max(newest, message.get("_id", -1) + 1)

    async def acknowledge() -> None:  # as a browser does: what it has is kept for it no longer
        while True:
            await asyncio.sleep(_ACKNOWLEDGE_SECONDS)
            await socket.emit("ack", {"client_id": client_id, "next_message_id": newest})

    socket.on("*", received)
    query = urlencode(
        {"client_id": client_id, "next_message_id": newest, "implicit_handshake": "true", "document_id": client_id}
        | {"tab_id": client_id}
    )
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    await socket.connect(
        f"{console}?{query}",
        socketio_path="/_nicegui_ws/socket.io",
        transports=["websocket"],
        headers={"cookie": cookie, "origin": console},
    )
    acknowledging = asyncio.create_task(acknowledge())
    try:
        yield
    finally:
        acknowledging.cancel()
        await socket.disconnect()


def _said(html: str, what: re.Pattern[str]) -> str:
    found = what.search(html)
    assert found, f"a page has no {what.pattern}"
    return found[1]


async def ask(url: str, key: str, seconds: float) -> list[float]:
    """Seconds of each answer, one call after another."""
    times = []
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            (await client.get("/jobs", params={"limit": 20})).raise_for_status()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
    return times


def percentile(times: list[float], share: float) -> float:
    """Milliseconds."""
    return 1000 * statistics.quantiles(times, n=1000, method="inclusive")[round(share * 1000) - 1]


@contextmanager
def training(sdk: Osora, file_id: str) -> Iterator[str]:
    """The id of a job that trains for the whole of the block."""
    hyperparameters: Any = {"n_epochs": 50, "batch_size": 1}
    job_id = sdk.jobs.create("osora-tiny", file_id, hyperparameters=hyperparameters)["id"]
    for event in sdk.jobs.events(job_id):
        if "train_loss" in (event.get("data") or {}):
            break
    yield job_id
    if (status := sdk.jobs.get(job_id)["status"]) != "running":
        sys.exit(f"the job that the pages show is {status} before a round has ended; ask for fewer --seconds")
    sdk.jobs.cancel(job_id)
    sdk.jobs.wait(job_id)


async def turn(service: Service, console: psutil.Process, seconds: float, into: Turns) -> None:
    """Ask for so long, and look at what the console needs meanwhile."""
    await asyncio.sleep(_REST_SECONDS)
    busy, began = sum(console.cpu_times()[:2]), time.monotonic()
    into.times += await ask(service.url, service.key, seconds)
    into.cores.append((sum(console.cpu_times()[:2]) - busy) / (time.monotonic() - began))
    into.mebibytes = max(into.mebibytes, console.memory_info().rss / 2**20)


async def measure(folder: Path, service: Service, options: Any) -> dict[int, Turns]:
    """Either state, by the number of pages, in turns."""
    address = json.loads((folder / "run" / "serve.json").read_text())["console_url"]
    console = next(
        child for child in psutil.Process(service.pid).children(recursive=True) if child.cmdline()[-1] == "console"
    )
    found = {0: Turns(), options.pages: Turns()}
    with Osora(service.url, service.key) as sdk:
        file = dataset(folder / "tickets.jsonl")
        file.write_text(file.read_text() * 20)  # so that its job outlasts a round
        file_id = sdk.files.upload(file)["id"]
        for _ in range(options.rounds):
            with training(sdk, file_id) as job_id:
                await turn(service, console, options.seconds, found[0])
                async with signed_in(folder, address) as client, AsyncExitStack() as stack:
                    for number in range(options.pages):
                        path = "/jobs" if number % 2 else f"/jobs/{job_id}"
                        await stack.enter_async_context(open_page(client, address, path))
                    await turn(service, console, options.seconds, found[options.pages])
    return found


def main() -> None:
    """The command."""
    arguments = parser(__doc__, devices=("cpu",))
    arguments.add_argument("--pages", type=int, default=50, help="how many (default: %(default)s)")
    arguments.add_argument("--seconds", type=float, default=10, help="of each turn (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=3, help="turns of either kind (default: %(default)s)")
    options = arguments.parse_args()
    report = Report(options.device, _COLUMNS)
    with tempfile.TemporaryDirectory() as place, serving(Path(place)) as service:
        found = asyncio.run(measure(Path(place), service, options))
    for pages, turns in found.items():
        median, high = (percentile(turns.times, share) for share in (0.5, 0.99))
        about: dict[str, float] = {"console_mib": turns.mebibytes, "cores": statistics.mean(turns.cores)}
        report.add(pages=pages, calls=len(turns.times), p50_ms=median, p99_ms=high, **about)
    ratio = report.rows[1]["p99_ms"] / report.rows[0]["p99_ms"]
    report.target("p99 with pages open against none", ratio, "times", f"<= {TARGET}", ratio <= TARGET)
    report.write(options.json)


if __name__ == "__main__":
    main()
