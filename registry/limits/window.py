"""A sliding window: what was counted in the window before fades while this one fills."""

import math
from dataclasses import dataclass
from typing import Literal

from registry.errors import Standing

SECONDS = 60


@dataclass(frozen=True)
class Window:
    """The two counts of a rate, as `limits` keeps them.

    Of the earlier one there counts the share of the window that it still reaches into.
    """

    previous: int
    previous_ends_in: float
    """Seconds until nothing of it counts any more."""
    current: int
    current_ends_in: float
    """Seconds until nothing of it counts any more: it becomes the earlier one a whole window before that."""

    @property
    def used(self) -> float:
        """What counts now."""
        return self.previous * self.previous_ends_in / SECONDS + self.current

    def free_in(self, limit: int, cost: int) -> float:
        """Seconds until `cost` more fits into `limit`, if nothing comes meanwhile; infinite where it never does."""
        room = limit - cost
        if room < 0:
            return math.inf
        if self.used <= room:
            return 0.0
        if self.current <= room:
            return self.previous_ends_in - (room - self.current) * SECONDS / self.previous
        begins_to_fade = max(0.0, self.current_ends_in - SECONDS)
        return begins_to_fade + SECONDS * (1 - room / self.current)

    def standing(self, of: Literal["requests", "tokens"], limit: int) -> Standing:
        """What a client is told."""
        reset_in = self.current_ends_in if self.current else self.previous_ends_in if self.previous else 0.0
        return Standing(of, limit, max(0, limit - math.ceil(self.used)), reset_in)
