"""The datasets of one command, which leaves none behind that came to nothing."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from osora.cli.files import told
from osora.cli.output import print_note, say
from osora.cli.transfers import upload
from osora.errors import OsoraConnectionError, OsoraError
from osora.sdk import Osora


class Datasets:
    """What it had to send is deleted again at the end, unless it is kept. Use as a context manager."""

    def __init__(self, osora: Osora, as_json: bool) -> None:
        self._osora = osora
        self._as_json = as_json
        self._sent: list[str] = []

    def __enter__(self) -> Self:
        return self

    def add(self, path: Path) -> str:
        """The id of the file at the service. Raises OsoraError if it is refused."""
        file, is_new = upload(self._osora, path, self._as_json)
        if is_new:
            self._sent.append(file["id"])
        if not self._as_json:
            say(told(file, path, is_new))
        return file["id"]

    def keep(self) -> None:
        """What was sent is in use now."""
        self._sent.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OsoraConnectionError):  # a job may have been made whose answer was lost
            return
        for file_id in self._sent:
            with contextlib.suppress(OsoraError):
                self._osora.files.delete(file_id)
                if not self._as_json:
                    print_note(f"Deleted {file_id} again: no job was made of it.")
