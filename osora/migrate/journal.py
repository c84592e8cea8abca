"""Answers as they come, on disk before the next is asked for: what was paid for is not lost."""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from osora.errors import OsoraUsageError


class Journal:
    """An append-only JSON Lines file. Its first line says what is recorded; the others are entries with a `key`.

    One process has it at a time. A last line without its end, which a crash leaves, is dropped. In memory are only the
    keys and where their entries are.

    Raises OsoraUsageError where another process has it, where it was begun with another `header`, and for a line that
    cannot be read.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self._path = path
        self._lock = FileLock(path.with_suffix(".lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise OsoraUsageError(f"{path} is being written by another process", "wait until that has ended") from None
        self._places: dict[str, int] = {}
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            self._file = opened.enter_context(path.open("a+b"))
            self._load(header)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> dict[str, Any]:
        self._file.seek(self._places[key])
        entry: dict[str, Any] = json.loads(self._file.readline())
        return entry

    def add(self, entry: dict[str, Any]) -> None:
        """Returns once it is on the disk."""
        self._places[entry["key"]] = self._append(entry)

    def _append(self, entry: dict[str, Any]) -> int:
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        return place

    def _load(self, header: dict[str, Any]) -> None:
        self._file.seek(0)
        place = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            entry = self._parse(line, number)
            if number == 1:
                self._check(entry, header)
            else:
                self._places[entry["key"]] = place
            place += len(line)
        self._file.truncate(place)
        if place == 0:
            self._append(header)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)
            if number > 1:
                entry["key"]
        except (ValueError, KeyError, TypeError):
            advice = "remove that line: its prompt is asked again"
            raise OsoraUsageError(f"{self._path} line {number} is no line of a journal", advice) from None
        return entry

    def _check(self, found: dict[str, Any], header: dict[str, Any]) -> None:
        for name, value in header.items():
            if found.get(name) != value:
                raise OsoraUsageError(
                    f"{self._path} was recorded with {name} {found.get(name)!r}, not {value!r}",
                    "name another folder with --output, or record as before",
                )
