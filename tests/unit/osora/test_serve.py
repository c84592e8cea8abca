"""`osora serve` itself, a real process with a real Redis, over stand-ins for the other programs."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from osora.discovery import discover
from osora.serve.console_link import redeem
from osora.serve.run import is_served

from .conftest import STUBS, Family

PROGRAM = """
from osora.cli import main
from osora.serve import supervisor

supervisor.OPTIONAL_SECONDS = {console_seconds}
main()
"""


class Serve:
    """A running `osora serve --json` and all that descends from it, found by a mark in the environment.

    It waits for its console as long as that takes on a busy machine, or `console_seconds`.
    """

    def __init__(self, data_dir: Path, *words: str, console_seconds: float = 600, **stub: str) -> None:
        self.data_dir = data_dir
        self.family = Family(data_dir / "run")
        env = {**os.environ, "PYTHONPATH": str(STUBS), **self.family.mark, **stub}
        program = [sys.executable, "-P", "-c", PROGRAM.format(console_seconds=console_seconds)]
        command = [*program, "serve", "--json", "--data-dir", str(data_dir), *words]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def until(self, event: str, **fields: object) -> dict[str, Any]:
        """The next notice of this kind with these fields."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            notice: dict[str, Any] = json.loads(line)
            if notice["event"] == event and fields.items() <= notice.items():
                return notice
        raise AssertionError(f"no {event} {fields}; it said: {self.process.communicate()[1]}")

    def child(self, words: str) -> psutil.Process:
        (pid,) = [pid for pid, command in self.family.living().items() if words in command]
        return psutil.Process(pid)

    def ends(self, timeout: float = 60) -> int:
        """Wait for the end; returns the exit code."""
        self.process.communicate(timeout=timeout)
        return self.process.returncode


@pytest.fixture
def start(data_dir: Path) -> Iterator[Callable[..., Serve]]:
    started: list[Serve] = []

    def starter(*words: str, **stub: Any) -> Serve:
        started.append(Serve(stub.pop("data_dir", data_dir), *words, **stub))
        return started[-1]

    yield starter
    for serve in started:
        if serve.process.poll() is None:
            serve.process.kill()
        serve.process.communicate()
        assert serve.family.gone(60), serve.family.living()


def test_it_serves_is_found_and_stops_without_a_trace(start: Callable[..., Serve], data_dir: Path) -> None:
    serve = start()
    up = [serve.until("up")["name"] for _ in range(6)]
    assert sorted(up) == ["api", "broker", "console", "database", "inference", "worker"]
    ready = serve.until("ready")
    assert redeem(data_dir, ready["console"].partition("?once=")[2])
    assert discover().url == ready["url"]
    assert "Redis" in ready["broker"] or "Valkey" in ready["broker"]
    assert f"OPENAI_BASE_URL={ready['url']}/v1 OPENAI_API_KEY=$(cat {ready['key_file']})" in ready["message"]
    assert stat.S_IMODE((data_dir / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / "run" / "redis.sock").stat().st_mode) == 0o700
    assert not [c for c in serve.child("unixsocket:").net_connections() if c.family != socket.AF_UNIX]
    for name in ("broker", "inference", "worker", "api", "console"):
        assert str(data_dir / "logs" / f"{name}.log") in ready["message"]
    serve.process.send_signal(signal.SIGINT)
    assert serve.ends() == 0
    assert serve.family.gone(0)
    assert not (data_dir / "run" / "serve.json").exists()


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Ports that the system gives to nobody who asks for any one, and on which a server of ours can listen."""
    with ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            holder.bind(("127.0.0.1", 0))
        yield [holder.getsockname()[1] for holder in holders]


def test_ports_of_the_environment_are_those_it_takes_and_what_it_does_not_use_it_names(
    start: Callable[..., Serve],
) -> None:
    with reserved_ports(2) as (port, inference):
        ports = {"OSORA_PORT": str(port), "OSORA_INFERENCE_PORT": str(inference)}
        serve = start(**ports, OSORA_INFERENCE_URLS="http://elsewhere:1")
        assert "OSORA_INFERENCE_URLS is not used" in serve.until("ignored")["message"]
        assert serve.until("ready")["url"] == f"http://127.0.0.1:{port}"
        listening = {c.laddr.port for c in serve.child("-m inference").net_connections() if c.status == "LISTEN"}
        assert listening == {inference}


def test_a_crashed_program_is_started_again(start: Callable[..., Serve]) -> None:
    serve = start()
    serve.until("ready")
    for words, name in (("-m worker", "worker"), ("unixsocket:", "broker")):
        before = serve.child(words)
        before.kill()
        assert serve.until("restart")["name"] == name
        serve.until("up", name=name)
        assert serve.child(words).pid != before.pid


def test_a_program_that_never_comes_up_ends_it_with_its_log(start: Callable[..., Serve]) -> None:
    serve = start(STUB_BROKEN="inference")
    _, stderr = serve.process.communicate(timeout=60)
    assert serve.process.returncode == 1
    assert "inference cannot start: the reason" in stderr
    assert json.loads(stderr.splitlines()[-1])["error"]["code"] == "start_failed"
    assert serve.family.gone(0)


def test_a_program_that_is_killed_before_it_serves(start: Callable[..., Serve]) -> None:
    serve = start(STUB_KILLED="worker")
    notice = serve.until("restart")
    assert "worker was ended by SIGKILL, as the system does where memory runs out" in notice["message"]
    _, stderr = serve.process.communicate(timeout=60)
    assert "ended by SIGKILL" in json.loads(stderr.splitlines()[-1])["error"]["message"]


def test_a_program_that_refuses_its_settings_is_not_tried_again(start: Callable[..., Serve]) -> None:
    serve = start(STUB_REFUSES="worker")
    stdout, stderr = serve.process.communicate(timeout=60)
    assert serve.process.returncode == 1
    assert "restart" not in stdout
    assert json.loads(stderr)["error"]["message"] == "worker cannot do that. Next: ask for less."
    assert serve.family.gone(0)


def test_a_base_that_is_not_there_is_refused_before_anything_starts(start: Callable[..., Serve]) -> None:
    serve = start(STUB_NO_BASE="nope")
    stdout, stderr = serve.process.communicate(timeout=60)
    assert (serve.process.returncode, stdout) == (1, "")
    assert json.loads(stderr)["error"]["message"] == "no base model called 'nope'."


@pytest.mark.parametrize("foreign", [False, True], ids=["empty", "with somebody's file"])
def test_a_data_directory_that_others_can_read(start: Callable[..., Serve], data_dir: Path, foreign: bool) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o755)
    if foreign:
        (data_dir / "photo.jpg").touch()
    serve = start()
    if foreign:
        assert "chmod 700" in serve.until("open_to_others")["message"]
    serve.until("ready")
    assert stat.S_IMODE(data_dir.stat().st_mode) == (0o755 if foreign else 0o700)
    assert stat.S_IMODE((data_dir / "local.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((data_dir / "logs" / "api.log").stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["STUB_BROKEN", "STUB_KILLED", "STUB_REFUSES"])
def test_a_console_that_does_not_come_up_stops_nobody_else(start: Callable[..., Serve], how: str) -> None:
    serve = start(**{how: "console"})
    assert "the others go on without it" in serve.until("given_up", name="console")["message"]
    assert "console" not in serve.until("ready")
    serve.process.send_signal(signal.SIGINT)
    assert serve.ends() == 0


def test_a_console_that_hangs_is_not_waited_for_longer_than_a_while(start: Callable[..., Serve]) -> None:
    serve = start(STUB_SLOW_CONSOLE="600", console_seconds=0.1)
    serve.until("ready")


def test_a_console_without_its_port_or_not_wanted(start: Callable[..., Serve], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        serve = start("--console-port", port)
        assert f"port {port} is taken" in serve.until("no_console")["message"]
        assert "console" not in serve.until("ready")
    other = start("--no-console", data_dir=tmp_path / "other")
    assert "console" not in other.until("ready")


def test_a_failed_migration_ends_it_at_once(start: Callable[..., Serve]) -> None:
    serve = start(STUB_BROKEN="registry")
    assert serve.ends() == 1
    assert serve.family.gone(0)


def test_the_default_port_taken(start: Callable[..., Serve]) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8000))
        except OSError:
            pass  # somebody has it: just as good
        else:
            other.listen()
        serve = start()
        notice = serve.until("port")
        assert notice["asked"] == 8000
        ready = serve.until("ready")
        assert ready["url"] == f"http://127.0.0.1:{notice['port']}"
        assert f"export OSORA_URL={ready['url']} OSORA_DATA_DIR=" in ready["message"]


def test_a_port_that_was_asked_for_and_is_taken(start: Callable[..., Serve]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        serve = start("--port", str(other.getsockname()[1]))
        _, stderr = serve.process.communicate(timeout=60)
    assert serve.process.returncode == 1
    assert json.loads(stderr)["error"]["code"] == "port_taken"


def test_two_that_start_together_take_different_ports(start: Callable[..., Serve], tmp_path: Path) -> None:
    both = [start(data_dir=tmp_path / name) for name in ("one", "two")]
    assert len({serve.until("ready")["url"] for serve in both}) == 2


def test_one_data_directory_has_one_server(start: Callable[..., Serve], data_dir: Path) -> None:
    assert not is_served(data_dir)
    url = start().until("ready")["url"]
    assert is_served(data_dir)
    second = start()
    _, stderr = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    error = json.loads(stderr)["error"]
    assert error["code"] == "already_served"
    assert url in error["message"]
    assert (data_dir / "run" / "serve.json").exists()


PHASES = ["starting", "up broker", "up database", "up worker", "ready"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
@pytest.mark.parametrize("phase", PHASES)
def test_nothing_is_left_whenever_it_is_stopped(
    start: Callable[..., Serve], phase: str, number: signal.Signals
) -> None:
    serve = start(STUB_SLOW_INFERENCE="0.3", STUB_SLOW_REGISTRY="0.2")
    event, _, name = phase.partition(" ")
    serve.until(event, **({"name": name} if name else {}))
    serve.process.send_signal(number)
    assert serve.ends() == (-9 if number == signal.SIGKILL else 0)
    assert serve.family.gone(60 if number == signal.SIGKILL else 0)


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.25, 0.35, 0.45])
def test_nothing_is_left_whenever_it_is_killed(start: Callable[..., Serve], delay: float) -> None:
    serve = start()
    time.sleep(delay)  # no signal to wait for: the point is that any moment will do
    serve.process.kill()
    serve.ends()
    assert serve.family.gone(60)


def test_a_child_that_ignores_sigterm_and_one_that_left_a_process(start: Callable[..., Serve]) -> None:
    serve = start(STUB_STUBBORN="inference", STUB_BREEDER="worker")
    serve.until("ready")
    assert serve.child("sleep 600")
    serve.process.terminate()
    assert serve.ends() == 0
    assert serve.family.gone(0)


def test_a_second_ctrl_c_does_not_wait(start: Callable[..., Serve]) -> None:
    serve = start(STUB_STUBBORN="worker")
    serve.until("ready")
    serve.process.send_signal(signal.SIGINT)
    serve.until("stopping")
    time.sleep(1.1)
    before = time.monotonic()
    serve.process.send_signal(signal.SIGINT)
    assert serve.ends() == 0
    assert time.monotonic() - before < 12
    assert serve.family.gone(0)


def test_a_deep_data_directory(start: Callable[..., Serve], tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e f" * 20)
    serve = start(data_dir=deep)
    serve.until("ready")
    environment = serve.child("-m worker").environ()
    assert str(deep) not in environment["OSORA_BROKER_URL"]
    socket_path = Path(environment["OSORA_BROKER_URL"].partition("://")[2])
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    serve.process.terminate()
    assert serve.ends() == 0
    assert not socket_path.parent.exists()


def test_logs_of_the_run_before_are_kept(start: Callable[..., Serve], data_dir: Path) -> None:
    for _ in range(2):
        serve = start()
        serve.until("ready")
        serve.process.terminate()
        assert serve.ends() == 0
    assert "ready" in (data_dir / "logs" / "worker.log.1").read_text()


def test_somebody_elses_broker_is_used(start: Callable[..., Serve]) -> None:
    serve = start(OSORA_BROKER_URL="redis://:secret@queue.example:6379/0")
    ready = serve.until("ready")
    assert ready["broker"] == "redis://queue.example:6379/0"
    assert not [command for command in serve.family.living().values() if "unixsocket:" in command]


def test_nobody_listening_to_its_words_does_not_stop_it(start: Callable[..., Serve], data_dir: Path) -> None:
    serve = start()
    serve.until("starting")
    assert serve.process.stdout is not None
    serve.process.stdout.close()
    deadline = time.monotonic() + 60
    while not (data_dir / "run" / "serve.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (data_dir / "run" / "serve.json").exists()
    serve.process.terminate()
    assert serve.process.wait(timeout=60) == 0
    assert serve.family.gone(0)
