"""`python -m api` as a process of its own."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from registry.context import Registry
from registry.settings import Settings
from registry.tenants import Principal
from tests.support.jobs import submit
from tests.support.ports import free_port

# Stands still where it has received a file, and has not checked it.
_HANGS_AT_AN_UPLOAD = """
import sys, time
from registry import files

def hang(*given, **asked):
    print("checking", file=sys.stderr, flush=True)
    time.sleep(600)

files.check = hang
from api.__main__ import main
main()
"""

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def database_url_of_the_test(database_url: str) -> str:
    return database_url


def test_it_imports_no_torch() -> None:
    program = "import sys, api.app, api.server, api.__main__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_ready_and_stops_at_a_signal_with_a_stream_open(
    registry: Registry, settings: Settings, principal: Principal, api_key: str, number: int
) -> None:
    job = submit(registry, principal)
    port = free_port()
    environment = {
        **os.environ,
        "OSORA_DATA_DIR": str(settings.data_dir),
        "OSORA_DATABASE_URL": settings.database_url,
        "OSORA_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    with process:
        try:
            assert "ready\n" in process.stderr
            headers = {"authorization": f"Bearer {api_key}", "accept": "text/event-stream"}
            url = f"http://127.0.0.1:{port}/jobs/{job.id}/events"
            with httpx.stream("GET", url, headers=headers, timeout=60) as response:
                lines = response.iter_lines()
                next(line for line in lines if line.startswith("event: "))
                process.send_signal(number)
                assert "event: done" not in list(lines)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_an_upload_that_a_kill_cuts_off_leaves_nothing_behind(
    registry: Registry, settings: Settings, api_key: str
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "OSORA_DATA_DIR": str(settings.data_dir),
        "OSORA_DATABASE_URL": settings.database_url,
        "OSORA_PORT": str(port),
    }
    rows = b'{"prompt": "q", "completion": "somebody\'s own words"}\n' * 1000
    sent = {"data": {"purpose": "fine-tune"}, "files": {"file": ("rows.jsonl", rows)}}
    headers = {"authorization": f"Bearer {api_key}"}

    def files_left() -> list[Path]:
        return [path for path in (settings.data_dir / "tmp").glob("*/*") if path.stat().st_size]

    def serve(*program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, *program], stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        assert "ready\n" in process.stderr
        return process

    with serve("-c", _HANGS_AT_AN_UPLOAD) as killed, ThreadPoolExecutor(1) as threads:
        try:
            url = f"http://127.0.0.1:{port}/files"
            answer = threads.submit(httpx.post, url, headers=headers, timeout=120, **sent)
            assert killed.stderr is not None
            assert "checking\n" in killed.stderr
        finally:
            killed.kill()
        with pytest.raises(httpx.TransportError):
            answer.result(60)
    assert files_left()
    with serve("-m", "api") as next_one:
        try:
            assert files_left() == []
        finally:
            next_one.terminate()
    assert [*(settings.data_dir / "tmp").iterdir()] == []


def test_the_server_secret_is_rotated_between_two_starts(registry: Registry, settings: Settings, api_key: str) -> None:
    environment = {
        **os.environ,
        "OSORA_DATA_DIR": str(settings.data_dir),
        "OSORA_DATABASE_URL": settings.database_url,
        "OSORA_PORT": str(free_port()),
    }

    def rotate(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "registry", "rotate-secret", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def hashes_in_use() -> set[str]:
        """Of a process's keys, after it has stopped as a supervisor stops it: by then uses are written down."""
        process = subprocess.Popen([sys.executable, "-m", "api"], stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        with process:
            try:
                assert "ready\n" in process.stderr
                headers = {"authorization": f"Bearer {api_key}"}
                answer = httpx.get(f"http://127.0.0.1:{environment['OSORA_PORT']}/keys", headers=headers, timeout=60)
                process.terminate()
                assert process.wait(60) == 0
            finally:
                process.kill()
        return {key["server_secret"] for key in answer.json()["data"]}

    assert hashes_in_use() == {"current"}
    begun = rotate()
    assert (begun.returncode, begun.stderr) == (0, "")
    assert "Next: restart the service" in begun.stdout
    too_early = rotate("--finish")
    assert (too_early.returncode, too_early.stdout) == (1, "")
    assert too_early.stderr.startswith("1 key hangs on an old secret")
    assert hashes_in_use() == {"fallback"}  # as it was when it was asked for
    checked = subprocess.run(
        [sys.executable, "-m", "registry", "check"], env=environment, capture_output=True, check=True
    )
    assert b"no key hangs on a fallback any more" in checked.stdout
    finished = rotate("--finish")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert hashes_in_use() == {"current"}
