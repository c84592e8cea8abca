"""A client that has nothing but what `pip install osora` brings, against the real service."""

import json
from pathlib import Path

from tests.acceptance.conftest import Service, dataset
from tests.support import light

PROGRAM = """
import asyncio, inspect, os, sys
from pathlib import Path
from osora import AsyncOsora, Osora

model, rows, folder = {model!r}, {rows!r}, Path({folder!r})

async def took(asked):
    if inspect.isawaitable(asked):
        return await asked
    return [item async for item in asked] if hasattr(asked, "__aiter__") else asked

async def walk(osora, name):
    async def all(asked):
        return await took(asked) if hasattr(asked, "__aiter__") else list(asked)

    (folder / name).mkdir()
    file = await took(osora.files.upload(rows, expires_after=3600))
    assert await took(osora.files.content(file["id"])) == Path(rows).read_bytes()
    upload = await took(osora.uploads.create("x.jsonl", 5))
    await took(osora.uploads.cancel(upload["id"]))
    await took(osora.files.delete(file["id"]))
    job = next(job for job in await all(osora.jobs.list()) if job["fine_tuned_model"] == model)
    heard = []
    assert (await took(osora.jobs.wait(job["id"], heard.append)))["status"] == "succeeded"
    assert len(heard) == len(await all(osora.jobs.list_events(job["id"])))
    assert await all(osora.jobs.checkpoints(job["id"]))
    (metrics,) = await took(osora.jobs.results(job["id"], folder / name))
    assert metrics.read_text().startswith("step,")
    adapter = await took(osora.adapters.get(model))
    archive = folder / name / "a.zip"
    assert await took(osora.adapters.download(model, archive)) == archive.stat().st_size
    question = [{{"role": "user", "content": "Which city?"}}]
    answer = await took(osora.generate(question, adapter=model))
    stream = osora.stream(question, adapter=model)
    assert "".join(await all(stream)) == stream.result["text"] == answer["text"] == "Oslo", answer
    await took(osora.aliases.set(name, model))
    assert len(await took(osora.aliases.history(name))) == 1
    await took(osora.aliases.delete(name))
    key = await took(osora.keys.create(name))
    theirs = await took(osora.tenants.create(name))
    (given,) = await took(osora.permissions.create(model, [theirs["id"]]))
    await took(osora.permissions.delete(model, given["id"]))
    await took(osora.keys.revoke(key["id"]))
    assert (await took(osora.webhooks.event_types()))
    assert (await took(osora.pull_basis("osora-tiny", folder / name))).exists()
    assert (await took(osora.ready()))["ready"]
    assert "osora-tiny" in [base["name"] for base in await took(osora.bases())]

async def main():
    with Osora() as osora:
        await walk(osora, "sync")
    async with AsyncOsora() as osora:
        await walk(osora, "async")

asyncio.run(main())
print("done")
"""


def test_the_whole_sdk(service: Service, trained: str, tmp_path: Path) -> None:
    rows = dataset(tmp_path / "rows.jsonl", "Oslo")
    program = PROGRAM.format(model=trained, rows=str(rows), folder=str(tmp_path))
    done = light.run(program, OSORA_URL=service.url, OSORA_API_KEY=service.key)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_commands(service: Service, trained: str) -> None:
    words = (["jobs"], ["adapters"], ["bases"], ["aliases"], ["key", "list"], ["webhooks"])
    program = f"""
import sys
from osora.cli import main
for words in {words!r}:
    sys.argv = ["osora", *words, "--json"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words
        print("--")
"""
    done = light.run(program, OSORA_URL=service.url, OSORA_API_KEY=service.key)
    assert done.returncode == 0, done.stderr
    *printed, rest = done.stdout.split("--\n")
    assert ([type(json.loads(text)) for text in printed], rest) == ([list] * len(words), "")
