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

import httpx

from osora.errors import OsoraUsageError

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Target:
    """A service's URL, without a trailing slash, and the key to use there (None: no key was found)."""

    url: str
    key: str | None

    @property
    def is_local(self) -> bool:
        return is_loopback(self.url)


def data_dir() -> Path:
    """The embedded data directory: `OSORA_DATA_DIR`, else `~/.osora`. Raises OsoraUsageError as `absolute` does."""
    return absolute(Path(os.environ.get("OSORA_DATA_DIR") or "~/.osora"))


def absolute(path: Path) -> Path:
    """The path from the root on, `~` resolved. Raises OsoraUsageError for the home of somebody who has none."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise OsoraUsageError(
            f"{str(path)!r} begins in a home directory that is not there", "write it from / on"
        ) from error


def serve_file(directory: Path) -> Path:
    """Where a running `osora serve` says how to reach it."""
    return directory / "run" / "serve.json"


def discover(base_url: str | None = None, api_key: str | None = None) -> Target:
    """The service to talk to, from the arguments, the environment and the data directory, in this order.

    Raises OsoraUsageError for a URL that is none or a key that no request can carry.
    """
    given_url = base_url or os.environ.get("OSORA_URL")
    url = (given_url or _served_url() or DEFAULT_URL).strip().rstrip("/")
    check_url(url, "OSORA_URL" if given_url and not base_url else "The URL")
    key = (api_key or os.environ.get("OSORA_API_KEY") or "").strip() or None
    if key is not None:
        check_key(key, "The API key" if api_key else "OSORA_API_KEY")
    # The local key is an administrator's: it must never travel to another machine because a URL was set.
    if key is None and is_loopback(url):
        key = _read(data_dir() / "local.key")
    return Target(url, key)


def check_url(url: str, name: str, example: str = DEFAULT_URL) -> None:
    """Raises OsoraUsageError for a URL that is none. `name`: what it is called where it was given."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise OsoraUsageError(f"{name} is {url!r}, which is no URL: {error}", f"set it like {example}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        suggested = f"http://{url}" if "//" not in url else example
        raise OsoraUsageError(f"{name} is {url!r}, which has no http:// before it", f"set it like {suggested}")


def check_key(key: str, name: str, service: str = "Osora") -> None:
    """Raises OsoraUsageError for a key that no request can carry; it says where the fault is, never what the key is."""
    wrong = next((place for place, letter in enumerate(key, 1) if not "!" <= letter <= "~"), None)
    if wrong is not None:
        message = f"{name} cannot be a key of {service}: its character {wrong} is not one of plain ASCII"
        raise OsoraUsageError(message, "copy the key again, without quotes or blanks")


def _served_url() -> str | None:
    text = _read(serve_file(data_dir()))
    try:
        url = json.loads(text)["url"] if text else None
    except (ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) else None


def _read(path: Path) -> str | None:
    try:
        # Editors on Windows write a byte order mark, which is no part of a key.
        return path.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def is_loopback(url: str) -> bool:
    """Whether the URL is one of this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
