"""Waiting out the outages of what a worker depends on: a job is not to blame for them, and does not end by them."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from registry.outages import OUTAGES, first_line
from worker.reports import Interruption, Reports

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_SECONDS = 1.0
# `osora serve` and the compose file allow 20 seconds from SIGTERM to the end.
_DRAIN_SECONDS = 12.0


class DrainTimeoutError(Exception):
    """The worker stops before the outage is over. The job's lease runs out, and its last checkpoint stands."""


class Patience:
    """Tries an action until it works. What it does not count as an outage goes through."""

    def __init__(self, job_id: str, reports: Reports) -> None:
        self._job_id = job_id
        self._reports = reports
        self.leaving = False
        """Whether the attempt is already obeying a signal: then no other interrupts it, but for a lost lease."""

    def __call__(self, action: Callable[[], T], *, on_wait: Callable[[], None] | None = None) -> T:
        """What `action()` returns; it may be called many times. `on_wait` is called once if there is a wait.

        Raises `Interruption` when a signal comes meanwhile, `DrainTimeoutError` when a draining worker's time is up.
        """
        while True:
            try:
                return action()
            except OUTAGES as error:
                logger.warning("job %s: trying again in a moment: %s", self._job_id, first_line(error))
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                self._wait(error)

    def seconds_left(self) -> float | None:
        """Until a draining worker has to let go; None while it does not drain."""
        since = self._reports.draining_since
        return None if since is None else max(0.0, since + _DRAIN_SECONDS - time.monotonic())

    def _wait(self, error: Exception) -> None:
        if self.seconds_left() == 0:
            raise DrainTimeoutError(f"job {self._job_id} is left to its lease: {first_line(error)}") from error
        try:
            self._reports.pause(_RETRY_SECONDS)
        except Interruption as interrupted:
            if interrupted.signal == "lost" or not self.leaving:
                raise
