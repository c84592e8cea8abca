"""Where the service is and which key opens it, without anybody having to say so.

Order: arguments, then `OSORA_URL` / `OSORA_API_KEY`, then the embedded data directory, where `osora serve`
leaves the URL that it took (`run/serve.json`) and the key that it made (`local.key`).
"""

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Target:
    """A service's URL, without a trailing slash, and the key to use there (None: no key was found)."""

    url: str
    key: str | None

    @property
    def is_local(self) -> bool:
        return _is_loopback(self.url)


def data_dir() -> Path:
    """The embedded data directory: `OSORA_DATA_DIR`, else `~/.osora`."""
    return Path(os.environ.get("OSORA_DATA_DIR") or Path.home() / ".osora").expanduser().absolute()


def serve_file(directory: Path) -> Path:
    """Where a running `osora serve` says how to reach it."""
    return directory / "run" / "serve.json"


def discover(base_url: str | None = None, api_key: str | None = None) -> Target:
    """The service to talk to, from the arguments, the environment and the data directory, in this order."""
    url = (base_url or os.environ.get("OSORA_URL") or _served_url() or DEFAULT_URL).rstrip("/")
    key = api_key or os.environ.get("OSORA_API_KEY")
    # The local key is an administrator's: it must never travel to another machine because a URL was set.
    if key is None and _is_loopback(url):
        key = _read(data_dir() / "local.key")
    return Target(url, key)


def _served_url() -> str | None:
    text = _read(serve_file(data_dir()))
    try:
        url = json.loads(text)["url"] if text else None
    except (ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
