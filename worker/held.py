"""The attempts that a worker runs right now."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from registry.jobs import Attempt
from worker.reports import Reports


class HeldAttempts:
    """Attempts and the reports that each listens to, by lease token.

    Not by job: a worker that was asleep for longer than its lease may claim a job again that it still trains. The
    attempt that lost it has to hear of that, and must take nothing of its successor's with it when it ends.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[Attempt, Reports]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, attempt: Attempt, reports: Reports) -> Iterator[None]:
        """Have the attempt among those held. Whichever has its job already is told at once that it is lost."""
        with self._lock:
            predecessors = [other for held, other in self._held.values() if held.job_id == attempt.job_id]
            self._held[attempt.token] = (attempt, reports)
        for other in predecessors:
            other.signal("lost")
        try:
            yield
        finally:
            with self._lock:
                del self._held[attempt.token]

    def all(self) -> list[tuple[Attempt, Reports]]:
        """Those held now."""
        with self._lock:
            return list(self._held.values())
