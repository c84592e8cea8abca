"""The parts that count: many slow clients at once, many requests, many uploads that break off."""

import asyncio
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.abuse.attacker import Attacker
from benchmarks.abuse.attacks import ATTACKS
from benchmarks.abuse.healthy import Healthy
from benchmarks.abuse.place import Memory, Place, settled
from benchmarks.abuse.striking import Striker
from benchmarks.abuse.verdict import quantile
from benchmarks.report import Report

Part = Callable[[Namespace, Place, Memory], bool]
Send = Callable[[Attacker, int], Awaitable[None]]

SLOW_CLIENTS, REQUESTS, UPLOADS = 2000, 50_000, 1000
GET_RATIO, MEMORY_RATIO, DESCRIPTORS = 2.0, 1.1, 20
_AT_ONCE = 16
LOOKS = 10
_CLOSING_SECONDS = 2.0
_CROWDING_SECONDS = 10.0


def slow_clients(asked: Namespace, place: Place, memory: Memory) -> bool:
    """2,000 clients of three slow kinds at once, beside a healthy one."""
    report = Report(asked.device, {"when": "8", "clients": "8d", "gets": "6d", "p50": "8.4f", "p99": "8.4f"})
    count = asked.count or SLOW_CLIENTS
    kinds = ("half headers", "small half bodies", "slow readers")
    sums: dict[str, list[float]] = {"quiet": [], "crowded": []}
    failures: list[str] = []
    with Healthy(place.url, place.healthy_key, asked.base) as healthy:
        strikers = [
            Striker(kind, place.url, place.attacker_key, asked.base, at_once=count // len(kinds)) for kind in kinds
        ]
        try:
            for striker in strikers:
                striker.ready()
            for _ in range(asked.rounds):
                _watch(healthy, asked.seconds, sums["quiet"], failures)
                for striker in strikers:
                    striker.go()
                time.sleep(min(_CROWDING_SECONDS, asked.seconds))  # that they connect is another attack
                _watch(healthy, asked.seconds, sums["crowded"], failures)
                for striker in strikers:
                    striker.stop()
                time.sleep(min(_CROWDING_SECONDS, asked.seconds))
        finally:
            for striker in strikers:
                striker.close()
    for when, gets in sums.items():
        clients = count if when == "crowded" else 0
        report.add(when=when, clients=clients, gets=len(gets), p50=quantile(gets, 0.5), p99=quantile(gets, 0.99))
    ratio = quantile(sums["crowded"], 0.99) / quantile(sums["quiet"], 0.99)
    report.target(f"GET p99 beside {count} slow clients", ratio, "x", f"<= {GET_RATIO:g}", ratio <= GET_RATIO)
    report.target("answers of 5xx", len(failures), "", "0", not failures)
    report.write(asked.json)
    return ratio <= GET_RATIO and not failures


def _watch(healthy: Healthy, seconds: float, gets: list[float], failures: list[str]) -> None:
    healthy.seen()
    time.sleep(seconds)
    seen = healthy.seen()
    gets += seen.gets
    failures += seen.failures


def requests(asked: Namespace, place: Place, memory: Memory) -> bool:
    """50,000 requests of all sorts, good and bad."""
    count = asked.count or REQUESTS
    return _flat(asked, place, memory, "requests", count, _requests)


def cut_uploads(asked: Namespace, place: Place, memory: Memory) -> bool:
    """1,000 uploads that are cut in the middle."""
    count = asked.count or UPLOADS
    return _flat(asked, place, memory, "uploads", count, _uploads)


async def _requests(attacker: Attacker, count: int) -> None:
    asked = iter(range(count))

    async def client() -> None:
        for number in asked:
            match number % 8:
                case 0:
                    await attacker.post("/generate", {"prompt": "Hi", "max_tokens": 1})
                case 1:
                    await attacker.post("/generate", {"prompt": "Hi", f"unknown{number}": 1})
                case 2:
                    await attacker.ask("GET", f"/jobs/ftjob-{number}")
                case 3:
                    await attacker.ask("GET", "/jobs", keyless=True)
                case 4:
                    await attacker.ask("GET", f"/nothing-{number}")
                case _:
                    await attacker.ask("GET", "/files")

    await asyncio.gather(*(client() for _ in range(_AT_ONCE)))


async def _uploads(attacker: Attacker, count: int) -> None:
    strike = ATTACKS["left files"].strike
    asked = iter(range(count))

    async def client() -> None:
        for _ in asked:
            await strike(attacker)

    await asyncio.gather(*(client() for _ in range(_AT_ONCE)))


def _flat(asked: Namespace, place: Place, memory: Memory, what: str, count: int, send: Send) -> bool:
    """Memory, descriptors and temporary files as they are after each tenth; the first is the warm-up."""
    columns = {what: "9d", "seconds": "8.1f", "mib": "36", "descriptors": "12d", "temporary": "10d", "answers": "30"}
    report = Report(asked.device, columns)
    began = time.monotonic()
    for look in range(1, LOOKS + 1):
        answers = asyncio.run(_sent(place, asked.base, send, count // LOOKS))
        deadline = time.monotonic() + asked.settle
        time.sleep(min(_CLOSING_SECONDS, asked.settle))
        while look == LOOKS and time.monotonic() < deadline and not _is_flat(report, memory):
            time.sleep(min(1.0, asked.settle))
        report.add(
            **{what: look * count // LOOKS},
            seconds=time.monotonic() - began,
            mib=" ".join(f"{role} {resident:.0f}" for role, resident in memory.now().items()),
            memory=memory.now(),
            descriptors=memory.descriptors(),
            temporary=_files_in(place.temporary),
            answers=", ".join(f"{count} x {answer}" for answer, count in answers.items()),
        )
    first, last = report.rows[0], report.rows[-1]
    growth = max((last["memory"][role] / had for role, had in first["memory"].items()), default=None)
    grown: dict[str, tuple[float | None, str, float]] = {
        "memory at the end over that after a tenth": (growth, "x", MEMORY_RATIO),
        "more descriptors than after a tenth": (last["descriptors"] - first["descriptors"], "", DESCRIPTORS),
        "more temporary files than after a tenth": (
            None if place.temporary is None else last["temporary"] - first["temporary"], "", 0,
        ),
        "answers of 5xx": (sum(" x 5" in row["answers"] for row in report.rows), "", 0),
    }  # fmt: skip
    for name, (value, unit, most) in grown.items():
        report.target(name, value, unit, f"<= {most:g}", value is not None and value <= most)
    report.write(asked.json)
    return all(target["met"] for target in report.targets if target["value"] is not None)


async def _sent(place: Place, base: str, send: Send, count: int) -> Counter[str]:
    attacker = Attacker(place.url, place.attacker_key, base)
    async with attacker.http:
        await send(attacker, count)
    return attacker.answers


def _is_flat(report: Report, memory: Memory) -> bool:
    first = report.rows[0]
    return settled(first["memory"], memory.now()) and memory.descriptors() <= first["descriptors"] + DESCRIPTORS


def _files_in(folder: Path | None) -> int | None:
    return None if folder is None else sum(path.is_file() for path in folder.rglob("*"))


PARTS: dict[str, Part] = {"slow-clients": slow_clients, "requests": requests, "cut-uploads": cut_uploads}
