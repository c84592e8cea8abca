"""Who may train at the same time in this process: any number of jobs, or one that has to be alone."""

import threading
from collections.abc import Callable, Iterator
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

    def is_open(self, alone: bool) -> bool:
        """Whether there is a place inside right now."""
        with self._changed:
            return self._has_place(alone)

    @contextmanager
    def passing(self, *, alone: bool, wanted: Callable[[], bool]) -> Iterator[bool]:
        """Waits for a place inside; False if the worker drains, or it is not `wanted` any more, before there is one."""
        entered = self._enter(alone, wanted)
        try:
            yield entered
        finally:
            if entered:
                self._leave()

    def _enter(self, alone: bool, wanted: Callable[[], bool]) -> bool:
        with self._changed:
            self._waiting_alone += alone
        try:
            while not self._take_place(alone):
                if self._draining.is_set() or not wanted():
                    return False
            return True
        finally:
            with self._changed:
                self._waiting_alone -= alone
                self._changed.notify_all()

    def _take_place(self, alone: bool) -> bool:
        """Waits for a while, and says whether there was a place."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_place(alone), _LOOK_SECONDS):
                return False
            self._inside += 1
            self._closed = alone
            return True

    def _has_place(self, alone: bool) -> bool:
        return self._inside == 0 if alone else not self._closed and self._waiting_alone == 0

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._closed = False
            self._changed.notify_all()
