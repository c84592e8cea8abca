"""The client on a system that is not Linux."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.systems import MACOS, WINDOWS

from .conftest import Answer, FakeService, sse

ROOT = Path(__file__).parents[3]


def run(
    program: str, *, system: str = WINDOWS, encoding: str = "utf-8", **env: str
) -> subprocess.CompletedProcess[str]:
    code = system + program
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, **env}
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding=encoding, timeout=120)


def command(*words: str) -> str:
    return f"\nimport sys\nsys.argv = {['osora', *words]!r}\nfrom osora.cli import main\nmain()\n"


def commands(*each: tuple[str, ...]) -> str:
    """Several in one process, which takes its time to start; after each its exit code."""
    return f"""
from osora.cli import main
for words in {each!r}:
    sys.argv = ["osora", *words]
    try:
        main()
    except SystemExit as ended:
        print("--", int(ended.code or 0), flush=True)
"""


@pytest.fixture
def busy(service: FakeService) -> FakeService:
    """A service that has a little of everything."""
    job: dict[str, Any] = {
        "id": "ftjob-1",
        "status": "succeeded",
        "model": "tiny",
        "created_at": 1,
        "fine_tuned_model": "ft:tiny:d::1",
    }
    job |= {"training_file": "file-1", "osora": {"adapter_id": "adp-1"}}
    service.on("GET", "/bases", Answer(body={"data": [{"name": "tiny", "loaded": True}]}))
    service.on("POST", "/files", Answer(body={"id": "file-1"}))
    service.on("GET", "/files/file-1", Answer(body={"id": "file-1", "filename": "a.jsonl"}))
    service.on("POST", "/jobs", Answer(body=job))
    service.on("GET", "/jobs/ftjob-1", Answer(body=job))
    event = sse("message", {"id": "ftevent-1", "message": "Größe ≥ 3", "type": "message", "data": {}}, 1)
    service.on("GET", "/jobs/ftjob-1/events", Answer(events=[event, sse("done", {"id": "ftjob-1"})]))
    service.on("GET", "/adapters/adp-1/download", Answer(body=b"PK"))
    service.on("POST", "/generate", Answer(body={"text": "é", "finish_reason": "stop"}))
    for path in ("/jobs", "/adapters", "/aliases", "/keys", "/webhook_endpoints"):
        service.on("GET", path, Answer(body={"data": []}))
    return service


@pytest.mark.parametrize("system", [WINDOWS, MACOS], ids=["windows", "macos"])
def test_every_module_of_the_client_can_be_imported(system: str) -> None:
    program = """
import importlib, pkgutil
import osora, osora.cli, osora.sdk, osora.migrate
for package in (osora.cli, osora.sdk, osora.migrate):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print("done")
"""
    done = run(program, system=system)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_commands(busy: FakeService) -> None:
    said = {
        ("--help",): "Usage",
        ("bases",): "tiny",
        ("jobs",): "No jobs",
        ("adapters",): "No adapters",
        ("aliases",): "No aliases",
        ("key", "list"): "",
        ("webhooks",): "",
        ("jobs", "watch", "ftjob-1"): "ft:tiny:d::1",
        ("generate", "Hello", "--adapter", "adp-1"): "é",
    }
    done = run(commands(*said))
    assert done.returncode == 0, done.stderr
    outputs = done.stdout.split("-- 0\n")[:-1]
    assert len(outputs) == len(said), done.stdout + done.stderr
    assert [words for words, output in zip(said, outputs, strict=True) if said[words] not in output] == []


def test_training_and_downloading(busy: FakeService, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    done = run(command("train", str(tmp_path / "a.jsonl")))
    assert done.returncode == 0, done.stderr
    assert "Größe ≥ 3" in done.stdout
    done = run(command("adapters", "download", "adp-1", "--output", str(tmp_path / "a.zip")))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.jsonl", "a.zip"]


def test_an_output_that_has_no_such_letters(busy: FakeService) -> None:
    """The code page of a console of old."""
    done = run(command("jobs", "watch", "ftjob-1"), encoding="cp437")
    assert done.returncode == 0, done.stderr
    assert "Größe ≥ 3" in done.stdout
    done = run(command("generate", "Hello", "--adapter", "adp-1"), encoding="ascii")
    assert (done.returncode, done.stdout.strip()) == (0, "?"), done.stderr


def test_serving_is_refused_in_a_sentence() -> None:
    for name in ("serve", "doctor"):
        done = run(command(name))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: Osora serves on Linux and macOS, and on Windows inside WSL;")
        assert done.stderr.count("\n") == 1


def test_the_local_service_is_found_in_the_home_of_windows(tmp_path: Path) -> None:
    """Its folder may be anywhere, with letters that a code page has not."""
    home = tmp_path / "Üser 名"
    (home / ".osora" / "run").mkdir(parents=True)
    (home / ".osora" / "run" / "serve.json").write_text('{"url": "http://127.0.0.1:9"}', encoding="utf-8")
    (home / ".osora" / "local.key").write_bytes(b"\xef\xbb\xbfosk-local\r\n")
    program = """
from osora.discovery import discover
found = discover()
print(found.url, found.key)
"""
    env = {"HOME": str(home), "USERPROFILE": str(home), "OSORA_DATA_DIR": ""}
    done = run(program, **env)
    assert (done.returncode, done.stdout) == (0, "http://127.0.0.1:9 osk-local\n"), done.stderr
