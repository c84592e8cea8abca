"""Ctrl-C and its relatives, as a flag that the main loop reads: no exception in the middle of anything."""

import contextlib
import os
import select
import signal
import time
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP ask for a stop, and a second one, a second later, for haste.

    (Shells and process managers often deliver one Ctrl-C as two signals at the same moment.)
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self.haste = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self._first is not None

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # Python writes a byte there at every signal, SIGCHLD included, which ends the sleep in `wait`.
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in SIGNALS:
            before = signal.signal(number, self._handle)
            if number == signal.SIGHUP and before == signal.SIG_IGN:  # nohup: stay when the terminal goes
                signal.signal(number, before)
            self._before[number] = before
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until the next signal."""
        ready, _, _ = select.select([self._read], [], [], seconds)
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 512)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif now - self._first > 1.0:
            self.haste = True
