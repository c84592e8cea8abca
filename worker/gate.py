"""Who may train at the same time in this process: any number of jobs, or one that has to be alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK_SECONDS = 0.5


class Gate:
    """A read-write lock with a way out: whoever waits to be alone goes first, and nobody waits in a draining worker."""

    def __init__(self, draining: threading.Event) -> None:
        self._draining = draining
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False
        self._waiting_alone = 0

    @contextmanager
    def passing(self, *, alone: bool) -> Iterator[bool]:
        """Waits for a place inside; False if the worker drains before there is one."""
        entered = self._enter(alone)
        try:
            yield entered
        finally:
            if entered:
                self._leave()

    def _enter(self, alone: bool) -> bool:
        with self._changed:
            self._waiting_alone += alone
            try:
                while not self._is_open(alone):
                    if self._draining.is_set():
                        return False
                    self._changed.wait(_LOOK_SECONDS)
            finally:
                self._waiting_alone -= alone
            self._inside += 1
            self._closed = alone
            return True

    def _is_open(self, alone: bool) -> bool:
        return self._inside == 0 if alone else not self._closed and self._waiting_alone == 0

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._closed = False
            self._changed.notify_all()
