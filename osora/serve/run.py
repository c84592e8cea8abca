"""`osora serve`: one installation on one machine, from nothing to ready and back to nothing."""

import contextlib
import fcntl
import importlib.util
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from osora.discovery import serve_file
from osora.serve.broker import prepare
from osora.serve.console_link import issue
from osora.serve.plan import LOGS, Place, module, plan
from osora.serve.ports import Ports, PortTakenError
from osora.serve.spawn import spawn
from osora.serve.stopping import StopSignals
from osora.serve.supervisor import Notice, RefusedError, Supervisor
from osora_common.private_files import keep_private

DEFAULT_PORT = 8000
DEFAULT_INFERENCE_PORT = 8100
DEFAULT_CONSOLE_PORT = 8010
LOCK = Path("run", "serve.lock")


class AlreadyServedError(Exception):
    """Another `osora serve` runs on this data directory. The argument says where, if it is known."""


def serve(
    data_dir: Path,
    host: str,
    port: int | None,
    inference_port: int | None,
    notify: Callable[[Notice], None],
    *,
    console: bool = True,
    console_port: int | None = None,
) -> None:
    """Run until SIGINT or SIGTERM. `port` None means 8000 or the next free one, `inference_port` None 8100 and
    `console_port` None 8010 likewise.

    Raises:
        AlreadyServedError: another one runs on this data directory.
        PortTakenError: the port asked for is in use.
        NoRedisError: there is no Redis to start.
        RefusedError: a setting is wrong, or a base is not there.
        StartFailedError: a program does not come up.
    """
    started = time.monotonic()
    with StopSignals() as stop, _only_one(data_dir, notify), contextlib.closing(Ports()) as ports:
        _check_bases()
        place = _choose_ports(ports, data_dir, host, port, inference_port, notify)
        if console:
            place = replace(place, console_port=_console_port(ports, host, console_port, notify))
        _name_ignored(notify)
        _rotate_logs(place)
        given_url = os.environ.get("OSORA_BROKER_URL")
        broker = None if given_url else prepare(place.run_dir)
        broker_url = given_url or (broker.url if broker else "")
        broker_kind = f"{broker.version()} on a private socket" if broker else _without_password(broker_url)
        supervisor = Supervisor(plan(place, broker_url, broker), notify)
        notify(Notice("starting", f"Starting Osora in {data_dir} (broker: {broker_kind})", {"broker": broker_kind}))

        def on_ready() -> None:
            seconds = round(time.monotonic() - started, 1)
            _publish(place)
            shown = supervisor.services.get("console")
            link = issue(data_dir, place.console_url) if place.console_url and shown and not shown.given_up else None
            notify(_ready_notice(place, broker_kind, seconds, link))

        try:
            supervisor.run(stop, on_ready)
        finally:
            serve_file(data_dir).unlink(missing_ok=True)
            if broker and broker.socket.parent != place.run_dir:
                with contextlib.suppress(OSError):
                    broker.socket.parent.rmdir()
    notify(Notice("stopped", "Stopped."))


def is_served(data_dir: Path) -> bool:
    """Whether an `osora serve` runs on this data directory."""
    try:
        with (data_dir / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextlib.contextmanager
def _only_one(data_dir: Path, notify: Callable[[Notice], None]) -> Iterator[None]:
    if not keep_private(data_dir):
        message = f"Other users of this machine can look into {data_dir}: chmod 700 it, or give another --data-dir."
        notify(Notice("open_to_others", message))
    for name in ("run", "logs"):
        (data_dir / name).mkdir(mode=0o700, exist_ok=True)
        (data_dir / name).chmod(0o700)
    lock: IO[bytes]
    with (data_dir / LOCK).open("ab") as lock:
        try:
            _lock(lock)
        except BlockingIOError:
            with contextlib.suppress(OSError, ValueError, KeyError):
                running = json.loads(serve_file(data_dir).read_text())
                raise AlreadyServedError(f"{running['url']}, process {running['pid']}") from None
            raise AlreadyServedError("still starting") from None
        serve_file(data_dir).unlink(missing_ok=True)  # left by one that was killed
        yield


def _lock(lock: IO[bytes]) -> None:
    """Raises BlockingIOError where another one has it. Who only looks, by `is_served`, has it for a moment at most."""
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(0.01)


def _check_bases() -> None:
    """Raises `RefusedError` for a base that is not there: a server that loads it would find out seconds later."""
    with spawn(module("inference.check"), env=os.environ, stderr=subprocess.PIPE) as check:
        _, said = check.communicate()
    if check.returncode == os.EX_CONFIG:
        raise RefusedError(said.decode(errors="replace").strip().rpartition("\n")[2])


def _choose_ports(
    ports: Ports,
    data_dir: Path,
    host: str,
    port: int | None,
    inference_port: int | None,
    notify: Callable[[Notice], None],
) -> Place:
    if port is None:
        taken = ports.take_near(host, DEFAULT_PORT)
        if taken != DEFAULT_PORT:
            message = f"Port {DEFAULT_PORT} is taken: using {taken}."
            notify(Notice("port", message, {"asked": DEFAULT_PORT, "port": taken}))
    else:
        taken = ports.take(host, port)
    if inference_port is None:
        inference = ports.take_near("127.0.0.1", DEFAULT_INFERENCE_PORT)
    else:
        inference = ports.take("127.0.0.1", inference_port)
    return Place(data_dir, host, taken, inference)


def _console_port(ports: Ports, host: str, port: int | None, notify: Callable[[Notice], None]) -> int | None:
    """The console's port, or None where there cannot be one: no reason not to serve."""
    if importlib.util.find_spec("nicegui") is None:
        message = "No console: the package nicegui is not installed. Next: pip install 'osora[server]'."
        notify(Notice("no_console", message, {"reason": "not_installed"}))
        return None
    try:
        return ports.take_near(host, DEFAULT_CONSOLE_PORT) if port is None else ports.take(host, port)
    except PortTakenError as error:
        message = f"No console: port {error} is taken. Next: choose another by --console-port."
        notify(Notice("no_console", message, {"reason": "port_taken"}))
        return None


def _name_ignored(notify: Callable[[Notice], None]) -> None:
    """Say which settings have no say here."""
    for name in (name for name in ("OSORA_INFERENCE_HOST", "OSORA_INFERENCE_URLS") if os.environ.get(name)):
        message = f"{name} is not used: `osora serve` has an inference server of its own, for this machine alone."
        notify(Notice("ignored", message, {"setting": name}))


def _rotate_logs(place: Place) -> None:
    """Logs are of this run; those of the run before are kept as `.1`."""
    for name in LOGS:
        log = place.log(name)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))


def _publish(place: Place) -> None:
    path = serve_file(place.data_dir)
    draft = path.with_suffix(".tmp")
    published = {"url": place.url, "pid": os.getpid(), "console_url": place.console_url}
    draft.write_text(json.dumps({name: value for name, value in published.items() if value is not None}))
    draft.replace(path)


def _ready_notice(place: Place, broker_kind: str, seconds: float, console_link: str | None) -> Notice:
    key_file = place.data_dir / "local.key"
    lines = [
        f"Osora is ready at {place.url} after {seconds} s.",
        f"  key     {key_file} (the command line and the SDK find it by themselves)",
        f"  data    {place.data_dir}",
        f"  broker  {broker_kind}",
        *(f"  log     {place.log(name)}: {what}" for name, what in LOGS.items() if place.log(name).exists()),
        *([f"  console {console_link} (signs you in, once; `osora console` prints another)"] if console_link else []),
        f"  curl    export {_exports(place)}",
        f"  openai  export OPENAI_BASE_URL={place.url}/v1 OPENAI_API_KEY=$(cat {shlex.quote(str(key_file))})",
        f"  next    {_next_step(place.data_dir)}   (Ctrl-C here stops everything)",
    ]
    data = {
        "url": place.url,
        "key_file": str(key_file),
        "data_dir": str(place.data_dir),
        "broker": broker_kind,
        "seconds": seconds,
    }
    if console_link:
        data["console"] = console_link
    return Notice("ready", "\n".join(lines), data)


def _exports(place: Place) -> str:
    """What a shell must know to reach this very installation, its address and its key."""
    return f"OSORA_URL={place.url} OSORA_DATA_DIR={shlex.quote(str(place.data_dir))}"


def _next_step(data_dir: Path) -> str:
    elsewhere = os.environ.get("OSORA_DATA_DIR") is None and data_dir != Path.home() / ".osora"
    command = "osora train FILE.jsonl"
    return f"OSORA_DATA_DIR={shlex.quote(str(data_dir))} {command}" if elsewhere else command


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
