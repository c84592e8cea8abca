"""The attacker's process: prepares, says so, and strikes whenever it is told to.

It reads `go` and `stop` from its standard input, a line each, and writes a line of JSON for each.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator

import httpx

from benchmarks.abuse.attacker import Attacker
from benchmarks.abuse.attacks import ATTACKS
from benchmarks.abuse.attacks.registry import Attack

_ONLY_WHEN_IDLE = 19
_AT_ONCE, _APART_SECONDS = 100, 0.2


def _delays(count: int) -> Iterator[float]:
    """A hundred come at once, and so many each fifth of a second after: a flood of connections is another attack."""
    return (index // _AT_ONCE * _APART_SECONDS for index in range(count))


async def _again_and_again(attack: Attack, attacker: Attacker, delay: float) -> None:
    await asyncio.sleep(delay)
    while True:
        try:
            await attack.strike(attacker)
        except (httpx.HTTPError, OSError, ValueError):  # cut off: part of the trade; the answers are counted
            attacker.answers["cut off"] += 1
            await asyncio.sleep(0.05)


async def _commands() -> "asyncio.StreamReader":
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def _main(name: str, url: str, base: str, at_once: str | None = None) -> None:
    attack = ATTACKS[name]
    attacker = Attacker(url, os.environ["ATTACKER_KEY"], base)
    count = attack.at_once if at_once is None else int(at_once)
    commands = await _commands()
    await attacker.sweep()
    if attack.prepare is not None:
        await attack.prepare(attacker)
    _say(event="ready")
    striking: list[asyncio.Task[None]] = []
    while line := await commands.readline():
        if line.strip() == b"go":
            attacker.answers.clear()
            striking = [asyncio.create_task(_again_and_again(attack, attacker, delay)) for delay in _delays(count)]
            _say(event="striking")
        else:
            for task in striking:
                task.cancel()
            await asyncio.gather(*striking, return_exceptions=True)
            _say(event="stopped", answers=dict(attacker.answers))
    with contextlib.suppress(Exception):
        await attacker.http.aclose()


if __name__ == "__main__":
    os.nice(_ONLY_WHEN_IDLE)
    asyncio.run(_main(*sys.argv[1:]))
