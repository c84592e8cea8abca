"""When the next request may go out."""

import threading
import time
from collections.abc import Callable


class PaceStoppedError(Exception):
    """Raised in the threads that wait, once nobody wants their requests any more."""


class Pace:
    """Spaces requests evenly, at most `per_minute` of them (None: no limit), and holds all after a refusal.

    Thread-safe: any number of threads may wait for their turn.
    """

    def __init__(self, per_minute: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Returns when it is the caller's turn. Raises `PaceStoppedError` after `stop`."""
        while not self._stopped.is_set():
            with self._lock:
                now = self._clock()
                delay = self._next - now
                if delay <= 0:
                    self._next = now + self._interval
                    return
            self._stopped.wait(delay)
        raise PaceStoppedError

    def hold(self, seconds: float) -> None:
        """Nobody goes for so long from now on."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def stop(self) -> None:
        self._stopped.set()
