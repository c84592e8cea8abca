import importlib.util
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from kombu.connection import Connection

from osora.serve import broker
from osora.serve.spawn import spawn


def test_celery_reaches_it_in_a_directory_with_an_odd_name() -> None:
    with tempfile.TemporaryDirectory(prefix='a b%c#"d', dir="/tmp") as run_dir:
        redis = broker.prepare(Path(run_dir))
        with spawn(redis.command, env=os.environ, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not redis.answers() and time.monotonic() < deadline:
                time.sleep(0.01)
            with Connection(redis.url) as connection, connection.SimpleQueue("q") as queue:
                queue.put({"word": "hello"})
                message = queue.get(timeout=60)
                assert message.payload == {"word": "hello"}
                message.ack()
            process.terminate()


def test_a_short_path_stays_in_the_run_directory(tmp_path: Path) -> None:
    assert broker.socket_path(Path("/x/run")) == Path("/x/run/redis.sock")


def test_somebody_elses_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    deep = tmp_path / ("d" * 120)
    private = broker.socket_path(deep).parent
    private.chmod(0o755)
    with pytest.raises(PermissionError):
        broker.socket_path(deep)
    private.rmdir()
    private.symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        broker.socket_path(deep)


def test_no_binary_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(broker.NoRedisError):
        broker.find_binary()


def test_a_binary_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "valkey-server"
    own.write_text("#!/bin/sh\necho Valkey server v=8.1.0 sha=0\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if broker.find_binary() == own:  # unless a redis-server is installed on this machine
        assert broker.prepare(tmp_path).version() == "Valkey 8.1.0"
