"""What `jobs` does beyond one request."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from osora import OsoraAPIError

from .conftest import Connect


@pytest.mark.parametrize(
    ("named", "saved"),
    [
        ("step_metrics.csv", "step_metrics.csv"),
        ("../../up.csv", "_.._up.csv"),
        ("C:\\a|b?.csv", "C__a_b_.csv"),
        ("..", "file-1"),
    ],
)
def test_result_files_stay_in_the_folder(connect: Connect, tmp_path: Path, named: str, saved: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        bodies: dict[str, Any] = {"/jobs/ftjob-1": {"result_files": ["file-1"]}, "/files/file-1": {"filename": named}}
        if request.url.path in bodies:
            return httpx.Response(200, json=bodies[request.url.path])
        return httpx.Response(200, content=b"step\n1\n")

    client = connect(answer)
    assert client.got(client.osora.jobs.results("ftjob-1", tmp_path)) == (tmp_path / saved,)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(saved, b"step\n1\n")]


def test_a_dry_run_sends_what_the_job_would(connect: Connect) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"steps": 9, "probe": None})

    client = connect(answer)
    fields: dict[str, Any] = {"suffix": "a", "osora": {"overlong": "drop", "validation_share": 0.1}}
    assert client.got(client.osora.jobs.dry_run("tiny", "file-1", probe=20, **fields))["steps"] == 9
    client.got(client.osora.jobs.create("tiny", "file-1", **fields))
    dry, real = asked
    assert dict(dry.url.params) == {"dry_run": "true", "probe": "20"}
    assert (dry.content, "idempotency-key" in dry.headers) == (real.content, False)


def test_waiting_takes_up_a_lost_stream(connect: Connect) -> None:
    def events(*numbers: int, done: bool = False) -> httpx.Response:
        lines = [f'id: {n}\nevent: message\ndata: {{"id": "ftevent-{n}"}}\n\n' for n in numbers]
        lines += ["event: done\ndata: {}\n\n"] if done else []
        return httpx.Response(200, text="".join(lines), headers={"content-type": "text/event-stream"})

    replies = [events(1, 2), httpx.Response(503, json={"error": {"message": "starting"}}), events(3, done=True)]
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/jobs/ftjob-1":
            return httpx.Response(200, json={"status": "succeeded"})
        seen.append(request.headers.get("last-event-id"))
        return replies.pop(0)

    client, heard, lost = connect(answer), [], []
    job = client.got(client.osora.jobs.wait("ftjob-1", heard.append, on_lost=lost.append))
    assert job["status"] == "succeeded"
    assert [event["id"] for event in heard] == ["ftevent-1", "ftevent-2", "ftevent-3"]
    assert (seen, client.pauses, len(lost)) == ([None, "2", "2"], [0.25, 0.5], 1)


def test_whoever_listens_may_stop_the_waiting(connect: Connect) -> None:
    told = 'id: 1\nevent: message\ndata: {"id": "ftevent-1"}\n\n'
    client = connect(lambda _: httpx.Response(200, text=told, headers={"content-type": "text/event-stream"}))

    def stop(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.got(client.osora.jobs.wait("ftjob-1", stop))


def test_a_job_that_is_not_there_is_not_waited_for(connect: Connect) -> None:
    client = connect(lambda _: httpx.Response(404, json={"error": {"message": "no job"}}))
    with pytest.raises(OsoraAPIError, match="no job"):
        client.got(client.osora.jobs.wait("ftjob-1"))
    assert client.pauses == []
