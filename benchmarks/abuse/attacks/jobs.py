"""Jobs and exports that take from others what they need to work."""

import asyncio
from typing import Any

from benchmarks.abuse.attacker import ROW, Attacker, rows_of
from benchmarks.abuse.attacks.registry import attack


async def _job(attacker: Attacker, file_id: str, **fields: Any) -> str | None:
    body = {"model": attacker.base, "training_file": file_id, "hyperparameters": {"n_epochs": 1}, **fields}
    response = await attacker.post("/jobs", body)
    return str(response.json()["id"]) if response.is_success else None


async def _upload(attacker: Attacker) -> None:
    attacker.made["file"] = await attacker.upload(rows_of(ROW, 32))


async def _train(attacker: Attacker) -> None:
    await _upload(attacker)
    job_id = await _job(attacker, attacker.made["file"])
    for _ in range(600):
        job = (await attacker.ask("GET", f"/jobs/{job_id}")).json()
        if job["status"] == "succeeded":
            attacker.made["adapter"] = job["fine_tuned_model"]
            return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"the attacker's own job is {job['status']}")


async def _upload_turns(attacker: Attacker) -> None:
    pair = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    attacker.made["file"] = await attacker.upload(rows_of({"messages": pair * 3000}, 1))


@attack("many turns", at_once=9, prepare=_upload_turns)
async def many_turns(attacker: Attacker) -> None:
    """Jobs on a conversation of 3,000 short pairs, to be cut where it is too long."""
    await _job(attacker, attacker.made["file"], osora={"overlong": "truncate"})
    await asyncio.sleep(0.2)


async def _upload_wide(attacker: Attacker) -> None:
    row = {"messages": [{"role": "user", "content": "ab" * 500}, {"role": "assistant", "content": "b"}]}
    attacker.made["file"] = await attacker.upload(rows_of(row, 20_000))


@attack("much to prepare", at_once=9, prepare=_upload_wide)
async def much_to_prepare(attacker: Attacker) -> None:
    """Jobs on 20 MB of rows, each cancelled half a second after it was made."""
    job_id = await _job(attacker, attacker.made["file"])
    await asyncio.sleep(0.5)
    if job_id is not None:
        await attacker.ask("POST", f"/jobs/{job_id}/cancel")


@attack("job flood", at_once=8, prepare=_upload)
async def job_flood(attacker: Attacker) -> None:
    """As many jobs as it can post, all of high priority."""
    await _job(attacker, attacker.made["file"], osora={"priority": "high"})


@attack("dry runs", at_once=8, prepare=_upload)
async def dry_runs(attacker: Attacker) -> None:
    """Jobs that are only to be looked at, with a probe."""
    body = {"model": attacker.base, "training_file": attacker.made["file"]}
    await attacker.post("/jobs?dry_run=true&probe=2", body)


@attack("merged exports", at_once=80, prepare=_train)
async def merged_exports(attacker: Attacker) -> None:
    """80 merged exports at once."""
    await attacker.ask("GET", f"/adapters/{attacker.made['adapter']}/download?format=merged")


@attack("left exports", at_once=40, prepare=_train)
async def left_exports(attacker: Attacker) -> None:
    """Exports that are left half a second after they were asked for."""
    asked = attacker.ask("GET", f"/adapters/{attacker.made['adapter']}/download?format=gguf")
    try:
        await asyncio.wait_for(asked, 0.5)
    except TimeoutError:
        attacker.answers["left"] += 1


@attack("left files", at_once=8)
async def left_files(attacker: Attacker) -> None:
    """Uploads of 8 MiB that break off in the middle."""
    boundary = "cut"
    head = (
        f"POST /files HTTP/1.1\r\nhost: attacked\r\nauthorization: Bearer {attacker.key}\r\n"
        f"content-type: multipart/form-data; boundary={boundary}\r\ncontent-length: {8 * 2**20}\r\n\r\n"
        f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    async with attacker.connected() as (_, writer):
        writer.write(head.encode() + rows_of(ROW, 40_000)[: 4 * 2**20])
        await writer.drain()
    attacker.answers["cut"] += 1
