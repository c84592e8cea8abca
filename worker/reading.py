"""Reading rows within bounds: a file is its tenant's, and the worker is everybody's."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import osora_data
from osora_core.data import Row
from osora_core.errors import DataError

_AT_ONCE = 2
_LOOK_SECONDS = 0.5


class Turns:
    """The rows of few files are read at once, of one file a tenant: the interpreter belongs to the engine."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reading: set[str] = set()

    @contextmanager
    def taken(self, tenant: str, left: threading.Event) -> Iterator[None]:
        """Waits for a turn, but not once nobody waits for what is read (`left`)."""
        with self._changed:
            while not left.is_set() and (tenant in self._reading or len(self._reading) >= _AT_ONCE):
                self._changed.wait(_LOOK_SECONDS)
            takes = not left.is_set()
            if takes:
                self._reading.add(tenant)
        try:
            yield
        finally:
            if takes:
                with self._changed:
                    self._reading.remove(tenant)
                    self._changed.notify_all()


class Bounds:
    """What the rows of one file may take: `tokens` in all, of which each takes memory, and `seconds` to be read."""

    def __init__(self, tokens: int, seconds: float) -> None:
        self._tokens = tokens
        self._seconds = seconds
        self._read = 0
        self._until = time.monotonic() + seconds

    def check(self, row: osora_data.Row) -> None:
        """Raises DataError that names the row if there is no time left for it."""
        if time.monotonic() >= self._until:
            raise DataError(
                f"reading the rows has taken {self._seconds:g} seconds up to here, which is all that it may take",
                line=row.line,
                next_action="split the file, or have whoever runs the service raise OSORA_READING_SECONDS",
            )

    def count(self, row: Row) -> None:
        """Raises DataError that names the row if it is one too many."""
        self._read += len(row)
        if self._read > self._tokens:
            raise DataError(
                f"the rows up to here have {self._read:,} tokens, and a file of a job may have {self._tokens:,}",
                line=row.line,
                next_action="train on fewer rows, or have whoever runs the service raise OSORA_JOB_TOKENS",
            )
