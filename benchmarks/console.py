"""What open pages cost the API: its answers' times with none and with fifty, taking turns in one run.

    python -m benchmarks.console
    python -m benchmarks.console --pages 50 --seconds 20 --rounds 3

An `osora serve` of its own, with a console and a job that trains. A page is what a browser keeps of it: signed in, its
HTML fetched, its socket open; half of them show the list of jobs, half the job. The API is asked for a list, one call
after another.
"""

import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import socketio

from benchmarks.report import Report, parser
from benchmarks.service import dataset, serving
from osora import Osora
from osora.serve.console_link import issue

TARGET = 1.5
_CLIENT_ID = re.compile(r'"client_id": ?"([0-9a-f-]{36})"')


async def sign_in(folder: Path, console: str) -> httpx.AsyncClient:
    """A browser that is signed in."""
    client = httpx.AsyncClient(base_url=console, headers={"accept": "text/html", "origin": console}, timeout=60)
    answer = await client.get(issue(folder, console))
    assert answer.status_code == 303, answer.text
    return client


@asynccontextmanager
async def open_page(client: httpx.AsyncClient, console: str, path: str) -> AsyncIterator[None]:
    """A page with its socket, until the end of the block."""
    html = (await client.get(path)).raise_for_status().text
    found = _CLIENT_ID.search(html)
    assert found, "the page does not say who it is"
    client_id = found[1]
    socket = socketio.AsyncClient(reconnection=False)
    query = (
        f"client_id={client_id}&next_message_id=0&implicit_handshake=true&document_id={client_id}&tab_id={client_id}"
    )
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    await socket.connect(
        f"{console}?{query}",
        socketio_path="/_nicegui_ws/socket.io",
        transports=["websocket"],
        headers={"cookie": cookie, "origin": console},
    )
    try:
        yield
    finally:
        await socket.disconnect()


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


async def measure(folder: Path, console: str, sdk: Osora, options: Any) -> dict[str, list[float]]:
    """The times of either state, in turns."""
    file = sdk.files.upload(dataset(folder / "tickets.jsonl"))
    hyperparameters: Any = {"n_epochs": 50, "batch_size": 1}
    job = sdk.jobs.create("osora-tiny", file["id"], hyperparameters=hyperparameters)
    key = (folder / "local.key").read_text().strip()
    times: dict[str, list[float]] = {"none": [], "open": []}
    client = await sign_in(folder, console)
    async with client:
        for _ in range(options.rounds):
            times["none"] += await ask(sdk.url, key, options.seconds)
            async with AsyncExitStack() as stack:
                for number in range(options.pages):
                    path = "/jobs" if number % 2 else f"/jobs/{job['id']}"
                    await stack.enter_async_context(open_page(client, console, path))
                await asyncio.sleep(2)  # what they fetch when they open is not what they cost while they are open
                times["open"] += await ask(sdk.url, key, options.seconds)
    return times


def main() -> None:
    """The command."""
    arguments = parser(__doc__, devices=("cpu",))
    arguments.add_argument("--pages", type=int, default=50, help="how many (default: %(default)s)")
    arguments.add_argument("--seconds", type=float, default=10, help="of each turn (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=3, help="turns of either kind (default: %(default)s)")
    options = arguments.parse_args()
    report = Report(options.device, {"pages": "6", "calls": "6", "p50_ms": "8.1f", "p99_ms": "8.1f"})
    with tempfile.TemporaryDirectory() as place, serving(Path(place)) as service:
        console = json.loads((Path(place) / "run" / "serve.json").read_text())["console_url"]
        with Osora(service.url, service.key) as sdk:
            times = asyncio.run(measure(Path(place), console, sdk, options))
    figures = {name: (percentile(of, 0.5), percentile(of, 0.99)) for name, of in times.items()}
    for name, (median, high) in figures.items():
        report.add(pages=options.pages if name == "open" else 0, calls=len(times[name]), p50_ms=median, p99_ms=high)
    ratio = figures["open"][1] / figures["none"][1]
    report.target("p99 with pages open against none", ratio, "times", f"<= {TARGET}", ratio <= TARGET)
    report.write(options.json)


if __name__ == "__main__":
    main()
