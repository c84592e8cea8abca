"""Canaries sent through the real processes at DEBUG, where all goes well and where it does not.

None is in a log, in the broker, or in the arguments of a process. What else the service logs is searched when it ends.
"""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest
import redis

from tests.acceptance.conftest import BASE, Service, queue_at_rest
from tests.support.canaries import canary, found_in, found_in_logs
from tests.support.ports import free_port


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=60) as client:
        yield client


def rows(*contents: str) -> bytes:
    answer = {"role": "assistant", "content": canary("answer")}
    lines = (json.dumps({"messages": [{"role": "user", "content": text}, answer]}) + "\n" for text in contents)
    return "".join(lines).encode()


def upload(http: httpx.Client, content: bytes) -> httpx.Response:
    file = (f"{canary('filename')}.jsonl", content)
    return http.post("/files", data={"purpose": "fine-tune"}, files={"file": file})


def start_job(http: httpx.Client, **osora: Any) -> str:
    file_id = upload(http, rows(*[f"{canary('row')} {number}" for number in range(16)])).json()["id"]
    body = {
        "model": BASE,
        "training_file": file_id,
        "hyperparameters": {"n_epochs": 1},
        "metadata": {"note": canary("metadata")},
        "osora": {"sample_prompts": [canary("sample")], **osora},
    }
    job_id: str = http.post("/jobs", json=body).raise_for_status().json()["id"]
    return job_id


def end_of(http: httpx.Client, job_id: str) -> str:
    with http.stream("GET", f"/jobs/{job_id}/events", headers={"accept": "text/event-stream"}) as events:
        for _ in events.iter_lines():
            pass
    status: str = http.get(f"/jobs/{job_id}").json()["status"]
    return status


def in_broker(service: Service) -> str:
    """All that is in the broker, as text."""
    texts = []
    with redis.Redis(unix_socket_path=str(service.data_dir / "run" / "redis.sock")) as broker:
        for key in broker.scan_iter():
            kind = broker.type(key)
            read = {b"list": lambda k: broker.lrange(k, 0, -1), b"hash": broker.hgetall, b"string": broker.get}
            texts += [repr(key), repr(read.get(kind, broker.dump)(key))]
    return "\n".join(texts)


def test_no_canary_leaves_the_place_that_it_was_meant_for(service: Service, http: httpx.Client) -> None:
    chat = [{"role": "user", "content": canary("message")}]
    # Well asked, and answered.
    assert http.post("/generate", json={"prompt": canary("prompt"), "max_tokens": 4}).status_code == 200
    asked = {"model": BASE, "messages": chat, "max_tokens": 4, "stream": True, "user": canary("user")}
    assert "[DONE]" in http.post("/v1/chat/completions", json=asked).text
    key = http.post("/keys", json={"name": canary("keyname")}).json()
    hook = {"name": canary("hookname"), "url": f"http://127.0.0.1:{free_port()}/{canary('hookpath')}"}
    hook_id = http.post("/webhook_endpoints", json={**hook, "event_types": ["fine_tuning.job.succeeded"]}).json()["id"]
    assert end_of(http, start_job(http)) == "succeeded"
    # Ill asked.
    for path, body in (
        ("/generate", {"prompt": canary("prompt"), "max_tokens": -1, canary("field"): canary("value")}),
        ("/generate", {"prompt": canary("prompt"), "adapter_id": canary("adapter")}),
        ("/generate", {"prompt": canary("prompt"), "regex": f"({canary('regex')}"}),
        ("/v1/messages", {"model": BASE, "messages": chat * 2, "max_tokens": canary("number")}),
        ("/v1/responses", {"model": BASE, "input": [{"role": canary("role")}]}),
        ("/jobs", {"model": BASE, "training_file": canary("file"), "metadata": {"note": canary("metadata")}}),
    ):
        assert 400 <= http.post(path, json=body).status_code < 500, path
    assert upload(http, rows(canary("row")) + f'{{"{canary("broken")}'.encode()).status_code == 400
    assert http.post("/generate", content=f'{{"prompt": "{canary("json")}'.encode()).status_code == 400
    assert http.get(f"/files?after={canary('query')}").status_code in (400, 404)
    for wrong in (canary("key"), key["key"][:-1]):
        assert http.get("/jobs", headers={"authorization": f"Bearer {wrong}"}).status_code == 401
    # Ended early, and gone wrong.
    with queue_at_rest(service):
        cancelled = start_job(http)
        http.post(f"/jobs/{cancelled}/cancel").raise_for_status()
    assert end_of(http, cancelled) == "cancelled"
    assert end_of(http, start_job(http, learning_rate=1e30)) in ("failed", "succeeded")
    _break(service, cancelled, f'["{canary("column")}"]')
    assert http.get(f"/jobs/{cancelled}").status_code == 500
    _break(service, cancelled, "{}")
    http.delete(f"/webhook_endpoints/{hook_id}")
    http.delete(f"/keys/{key['id']}")

    logs = service.data_dir / "logs"
    assert "request " in (logs / "api.log").read_text()  # the 500 is there, without its values
    assert found_in_logs(logs) == {}
    assert found_in(in_broker(service)) == []
    for process in [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has ended by now
            assert found_in(" ".join(process.cmdline())) == []
    assert found_in(http.get("/ready").text) == []


def _break(service: Service, job_id: str, metadata: str) -> None:
    """Puts into the database what no program of ours would."""
    with sqlite3.connect(service.data_dir / "osora.db", timeout=30) as database:
        database.execute("UPDATE jobs SET metadata = ? WHERE id = ?", (metadata, job_id))
    database.close()


def _hear(stream: IO[str], said: list[str], is_ready: threading.Event) -> None:
    for line in stream:
        said.append(line)
        if line == "ready\n":
            is_ready.set()


def test_what_opens_the_stores_is_never_logged(tmp_path: Path) -> None:
    """A database and an object store that cannot be reached, named with their passwords."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OSORA_")},
        "OSORA_DATA_DIR": str(tmp_path),
        "OSORA_DATABASE_URL": f"postgresql+psycopg://osora:{canary('password')}@127.0.0.1:1/osora",
        "OSORA_BROKER_URL": f"redis://:{canary('broker')}@127.0.0.1:1/0",
        "OSORA_OBJECT_STORE": "s3://bucket/prefix",
        "OSORA_OBJECT_STORE_OPTIONS": json.dumps(
            {
                "access_key_id": canary("id"),
                "secret_access_key": canary("secret"),
                "endpoint": "http://127.0.0.1:1",
                "allow_http": "true",
                "region": "x",
            }
        ),
        "OSORA_SECRET_KEY": canary("pepper"),
        "OSORA_INTERNAL_TOKEN": canary("token"),
        "OSORA_PORT": str(port := free_port()),
        "OSORA_LOG_LEVEL": "DEBUG",
    }
    init = [sys.executable, "-m", "registry", "init"]
    done = subprocess.run(init, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert found_in(done.stdout + done.stderr) == []
    log = tmp_path / "api.log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [sys.executable, "-m", "api"], env=environment, stdout=out, stderr=subprocess.PIPE, text=True
        ) as api,
    ):
        try:
            assert api.stderr is not None
            said, is_ready = list[str](), threading.Event()
            # To its end: where the pipe is full, the program stands still.
            hearing = threading.Thread(target=_hear, args=(api.stderr, said, is_ready))
            hearing.start()
            assert is_ready.wait(120), said
            headers = {"authorization": "Bearer osk-" + "x" * 43}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=100) as http:
                answers = [http.get("/ready"), http.get("/jobs"), http.post("/generate", json={"prompt": "x"})]
        finally:
            api.terminate()
            hearing.join()
    assert [answer.status_code for answer in answers] == [503] * 3
    assert found_in("".join(said) + log.read_text() + "".join(answer.text for answer in answers)) == []
