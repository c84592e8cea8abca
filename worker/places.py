"""Which jobs a worker may claim: so many train at once, and some more have their rows read meanwhile."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from registry.jobs import Attempt
from worker.reading import Turns

Claim = Callable[[Collection[str]], Attempt | None]

# Nearly all jobs are ready to train before that.
_SLOW_SECONDS = 5.0


@dataclass(eq=False)
class Place:
    """That of one attempt, which is prepared until it trains."""

    tenant: str
    is_guest: bool
    """Whether it was claimed although others might be ready first: then it leaves if they are."""
    turns: Turns
    """To have its rows read."""
    train: Callable[["Place", float], bool]
    since: float = field(default_factory=time.monotonic)

    def begins_to_train(self, seconds: float) -> bool:
        """Whether there is room for it to train; waits for that for so long."""
        return self.train(self, seconds)


class Places:
    """What comes before a job's first step, the reading of its rows above all, may take as long as its tenant likes.

    So whoever is prepared for more than a few seconds keeps no other job from being claimed, and no tenant has more
    than half as many jobs prepared as may train.
    """

    def __init__(self, jobs: int, on_change: Callable[[], None]) -> None:
        """`on_change`: called when a place has become free in preparation or in training."""
        self._jobs = jobs
        self._on_change = on_change
        self._most_of_tenant = max(1, jobs // 2)
        self._turns = Turns()
        self._claiming = threading.Lock()
        self._changed = threading.Condition()
        self._preparing: set[Place] = set()
        self._training: set[Place] = set()

    @property
    def most(self) -> int:
        """Jobs that may ever be claimed at once."""
        return 2 * self._jobs + 2

    @property
    def claimable(self) -> int:
        """Jobs that may be claimed now, those included that are."""
        with self._changed:
            slow = sum(time.monotonic() - place.since > _SLOW_SECONDS for place in self._preparing)
            return min(self._jobs + slow, self.most)

    @property
    def room(self) -> int:
        """Further jobs that may be claimed now."""
        claimable = self.claimable
        with self._changed:
            if len(self._training) >= self._jobs:
                return 0
            return max(0, claimable - len(self._preparing) - len(self._training))

    def resize(self, jobs: int) -> None:
        """From now on so many jobs train at once, no more than at the beginning."""
        with self._changed:
            self._jobs, self._most_of_tenant = jobs, max(1, jobs // 2)
            self._changed.notify_all()
        self._on_change()

    def passed_over(self) -> list[str]:
        """The tenants that may have no further job prepared now."""
        with self._changed:
            of_tenant = Counter(place.tenant for place in self._preparing)
            is_full = len(self._preparing) + len(self._training) >= self._jobs
            return [tenant for tenant, count in of_tenant.items() if is_full or count >= self._most_of_tenant]

    @contextmanager
    def claimed(self, claim: Claim) -> Iterator[tuple[Attempt, Place] | None]:
        """The attempt that `claim` makes at a job of none of the tenants that it is given, with its place; None if it
        makes none, or there is no room."""
        with self._claiming:
            attempt = claim(self.passed_over()) if self.room else None
            if attempt is not None:
                with self._changed:
                    is_guest = len(self._preparing) + len(self._training) >= self._jobs
                    place = Place(attempt.tenant_id, is_guest, self._turns, self._train)
                    self._preparing.add(place)
        if attempt is None:
            yield None
            return
        try:
            yield attempt, place
        finally:
            with self._changed:
                self._preparing.discard(place)
                self._training.discard(place)
                self._changed.notify_all()
            self._on_change()

    def _train(self, place: Place, seconds: float) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._training) < self._jobs, seconds):
                return False
            self._preparing.discard(place)
            self._training.add(place)
        self._on_change()
        return True
