"""One real installation for all acceptance tests: `osora serve`, as a user starts it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from osora import Osora


@dataclass(frozen=True)
class Service:
    """A running `osora serve`."""

    url: str
    key: str
    data_dir: Path
    pid: int
    sdk: Osora


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service")) as service:
        yield service


@contextmanager
def serving(data_dir: Path) -> Iterator[Service]:
    """Short leases, so that a killed worker is missed within seconds. Afterwards no process may be left."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OSORA_")}
    env = {
        **own,
        "OSORA_DATA_DIR": str(data_dir),
        "OSORA_LEASE_SECONDS": "4",
        "OSORA_HEARTBEAT_SECONDS": "1",
        "OSORA_CHECKPOINT_SECONDS": "0.5",
    }
    command = [sys.executable, "-P", "-m", "osora", "serve", "--json", "--port", str(free_port())]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as server:
        family: list[psutil.Process] = []
        try:
            url = wait_until_ready(server)
            key = (data_dir / "local.key").read_text().strip()
            with Osora(url, key) as sdk:
                yield Service(url, key, data_dir, server.pid, sdk)
        finally:
            family = psutil.Process(server.pid).children(recursive=True)
            server.terminate()
            server.communicate(timeout=30)
        assert server.returncode == 0
        assert [process for process in family if process.is_running()] == []


def wait_until_ready(server: subprocess.Popen[bytes]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        notice = json.loads(line)
        if notice["event"] == "ready":
            return str(notice["url"])
    raise AssertionError("the service did not start")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
