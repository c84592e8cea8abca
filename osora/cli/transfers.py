"""Files on their way to the service and back: a bar with bytes and rate, and nothing left half-done."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from osora.cli.checking import refuse_bad_rows
from osora.cli.output import busy, is_utf8, plain
from osora.discovery import discover
from osora.errors import OsoraAPIError
from osora.schemas import File
from osora.sdk import Osora
from osora.sdk.transport import TIMEOUT


def upload(osora: Osora, path: Path, as_json: bool) -> tuple[File, bool]:
    """The file at the service, and whether it had to be sent: identical bytes that are there already are not.

    What expires is not taken for it: it could be gone when it is wanted. Raises OsoraAPIError for a file with bad rows,
    before it is sent.
    """
    with busy(f"reading {plain(path.name)}", as_json):
        known = _known(osora, path)
        if known is not None:
            return known, False
        refuse_bad_rows(path)
    with _bar(f"sending {path.name}", path.stat().st_size, as_json) as (progress, task):

        def on_progress(sent: int, size: int) -> None:
            progress.update(task, completed=sent)
            if sent >= size:
                progress.update(task, description=f"checking {plain(path.name)}")

        return osora.files.upload(path, on_progress=on_progress), True


@contextmanager
def receiving(name: str, as_json: bool) -> Iterator[Osora]:
    """A client that shows what it receives."""
    with _bar(f"fetching {name}", None, as_json) as (progress, task):

        def on_response(response: httpx.Response) -> None:
            length = response.headers.get("content-length")
            is_known = length is not None and "content-encoding" not in response.headers
            progress.update(task, total=int(length) if is_known else None)
            response.stream = _Counted(response.stream, lambda count: progress.advance(task, count))

        hooks = {"response": [on_response]}
        with (
            httpx.Client(timeout=TIMEOUT, trust_env=not discover().is_local, event_hooks=hooks) as http,
            Osora(http_client=http) as osora,
        ):
            yield osora


def new_path(path: Path) -> Path:
    """The path, if something can be made there. Raises `typer.BadParameter`: nothing is overwritten."""
    if path.exists():
        raise typer.BadParameter(f"{path} exists already; name another", param_hint="--output")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}; make it first", param_hint="--output")
    return path


@contextmanager
def _bar(description: str, total: int | None, as_json: bool) -> Iterator[tuple[Progress, Any]]:
    screen = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=as_json or not screen.is_terminal or not is_utf8(screen.file),  # type: ignore[arg-type]
    )
    with bar:
        yield bar, bar.add_task(plain(description), total=total)


class _Counted(httpx.SyncByteStream):
    def __init__(self, stream: Any, count: Callable[[int], None]) -> None:
        self._stream = stream
        self._count = count

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            yield piece
            self._count(len(piece))

    def close(self) -> None:
        self._stream.close()


def _known(osora: Osora, path: Path) -> File | None:
    digest, size = _digest(path), path.stat().st_size
    with contextlib.suppress(OsoraAPIError):  # a key that may not look can still send
        for file in osora.files.list():
            same = file.get("bytes") == size and (file.get("osora") or {}).get("sha256") == digest
            if same and file.get("purpose") == "fine-tune" and not file.get("expires_at"):
                return file
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
