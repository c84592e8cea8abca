"""Where a stored basis is found by its hash: a folder, or a URL."""

import os
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from osora_core.errors import UserError

VARIABLE = "OSORA_BASIS_FROM"
"""The folder or URL, for the library. In a folder, or below a URL, a basis is called `<hash>.safetensors`; a URL may
have `{hash}` where the hash belongs instead: `http://127.0.0.1:8000/bases/{hash}/basis` is a running service."""
_HASH = "{hash}"
_TIMEOUT_SECONDS = 60
_SERVICE = "http://127.0.0.1:8000"


def folders(place: str | None) -> list[Path]:
    """The folder that a place is, if it is no URL. Raises UserError if there is no such folder."""
    if place is None or _is_url(place):
        return []
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{VARIABLE} is {place!r}, which is no folder here and no http:// or https:// URL",
            param=VARIABLE,
            next_action="correct it, or leave it out",
        )
    return [folder]


def fetch(place: str, fingerprint: str, path: Path) -> bool:
    """Write the basis of this hash to `path`; False if the place has none.

    Nobody has looked yet whether it is the right one. Raises UserError if the place is not there, cannot be reached or
    breaks off.
    """
    for folder in folders(place):
        source = folder / f"{fingerprint}.safetensors"
        if not source.is_file():
            return False
        shutil.copyfile(source, path)
        return True
    url = place.replace(_HASH, fingerprint) if _HASH in place else f"{place.rstrip('/')}/{fingerprint}.safetensors"
    try:
        with urllib.request.urlopen(_request(url), timeout=_TIMEOUT_SECONDS) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file, 1024 * 1024)
            written, promised = file.tell(), answer.headers.get("content-length")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise _unreachable(url, f"HTTP {error.code}") from error
    except (OSError, ValueError, HTTPException) as error:
        raise _unreachable(url, str(error)) from error
    if promised is not None and written != int(promised):
        raise _unreachable(url, f"it broke off after {written} of {promised} bytes")
    return True


def _request(url: str) -> urllib.request.Request:
    request = urllib.request.Request(url)
    key = os.environ.get("OSORA_API_KEY")
    if key and urlsplit(url)[:2] == urlsplit(os.environ.get("OSORA_URL") or _SERVICE)[:2]:
        # The key is the service's. Not redirected: that may lead to another host.
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    return request


def _is_url(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _unreachable(url: str, reason: str) -> UserError:
    return UserError(
        f"the basis cannot be fetched from {url}: {reason}",
        param=VARIABLE,
        next_action=f"see whether {VARIABLE} is right and try again; the key for a service is OSORA_API_KEY, its "
        "address OSORA_URL",
    )
