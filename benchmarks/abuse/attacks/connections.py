"""Connections that are held and hardly used, and keys that are guessed."""

import asyncio

from benchmarks.abuse.attacker import ROW, Attacker, rows_of
from benchmarks.abuse.attacks.registry import attack

_HELD_SECONDS = 3600
_BODY = 3_900_000
_SMALL = 4096


async def _pause_job(attacker: Attacker) -> None:
    file_id = await attacker.upload(rows_of(ROW, 32))
    body = {"model": attacker.base, "training_file": file_id, "hyperparameters": {"n_epochs": 50}}
    job_id = (await attacker.post("/jobs", body)).raise_for_status().json()["id"]
    await attacker.ask("POST", f"/jobs/{job_id}/pause")
    attacker.made["job"] = job_id


@attack("watchers", at_once=1000, prepare=_pause_job)
async def watchers(attacker: Attacker) -> None:
    """1,000 watchers of a job that does not move."""
    async with attacker.connected() as (reader, writer):
        writer.write(attacker.head("GET", f"/jobs/{attacker.made['job']}/events?stream=true"))
        attacker.answers[(await reader.readline()).decode().partition(" ")[2].strip()] += 1
        while await reader.read(4096):
            pass
    await asyncio.sleep(0.5)  # refused, it comes back


@attack("half headers", at_once=300)
async def half_headers(attacker: Attacker) -> None:
    """300 clients that send a byte of their headers a second."""
    async with attacker.connected() as (reader, writer):
        writer.write(b"GET /jobs HTTP/1.1\r\nx-slow: ")
        await _dribble(attacker, reader, writer)


@attack("half bodies", at_once=300)
async def half_bodies(attacker: Attacker) -> None:
    """300 clients with a key whose bodies of 3.9 MB lack the end, and come a byte a second from there on."""
    async with attacker.connected() as (reader, writer):
        writer.write(attacker.head("POST", "/generate", length=_BODY))
        writer.write(b'{"prompt": "' + b"x" * (_BODY - 10_000))
        await _dribble(attacker, reader, writer)


@attack("small half bodies", at_once=300)
async def small_half_bodies(attacker: Attacker) -> None:
    """300 clients with a key whose bodies of a kilobyte come a byte a second."""
    async with attacker.connected() as (reader, writer):
        writer.write(attacker.head("POST", "/generate", length=1024))
        writer.write(b'{"prompt": "')
        await _dribble(attacker, reader, writer)


@attack("keyless half bodies", at_once=300)
async def keyless_half_bodies(attacker: Attacker) -> None:
    """The same without a key."""
    async with attacker.connected() as (reader, writer):
        writer.write(attacker.head("POST", "/jobs", length=_BODY, keyless=True))
        writer.write(b'{"model": "' + b"x" * (_BODY - 10_000))
        await _dribble(attacker, reader, writer)


async def _dribble(attacker: Attacker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte a second until there is an answer or nobody listens."""
    answer = asyncio.ensure_future(reader.readline())
    try:
        for _ in range(_HELD_SECONDS):
            done, _ = await asyncio.wait([answer], timeout=1)
            if done:
                attacker.answers[(await answer).decode().partition(" ")[2].strip() or "closed"] += 1
                await asyncio.sleep(0.5)
                return
            writer.write(b"x")
            await writer.drain()
    finally:
        answer.cancel()


@attack("slow readers", at_once=200)
async def slow_readers(attacker: Attacker) -> None:
    """200 clients that ask for the API's description and read 64 bytes of it a second."""
    async with attacker.connected(receives=_SMALL) as (reader, writer):
        writer.write(attacker.head("GET", "/openapi.json"))
        while await reader.read(64):
            await asyncio.sleep(1)
        attacker.answers["closed"] += 1


@attack("pipelines", at_once=200)
async def pipelines(attacker: Attacker) -> None:
    """200 clients that ask for it thirty times at once, and read nothing."""
    async with attacker.connected(receives=_SMALL) as (_, writer):
        for _ in range(30):
            writer.write(attacker.head("GET", "/openapi.json"))
        await writer.drain()
        await asyncio.sleep(_HELD_SECONDS)


@attack("wrong keys", at_once=32)
async def wrong_keys(attacker: Attacker) -> None:
    """Keys that are guessed."""
    await attacker.ask("GET", "/jobs", keyless=True, headers={"authorization": f"Bearer osk-{attacker.number():043d}"})


@attack("open connections", at_once=1000)
async def open_connections(attacker: Attacker) -> None:
    """1,000 connections that say nothing."""
    async with attacker.connected() as (reader, _):
        await reader.read(1)
        attacker.answers["closed"] += 1


@attack("nothing", at_once=1)
async def nothing(attacker: Attacker) -> None:
    """Nothing: what is seen beside it is noise."""
    await asyncio.sleep(_HELD_SECONDS)


@attack("lists", at_once=16)
async def lists(attacker: Attacker) -> None:
    """Lists, as fast as they come."""
    await attacker.ask("GET", "/jobs?limit=100")
