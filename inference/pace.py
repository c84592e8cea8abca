"""How fast tokens come, lately."""

import time
from collections import deque
from collections.abc import Callable

_SECONDS = 10


class Pace:
    """Tokens a second over the last ten whole seconds. Counting costs an addition a step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: deque[tuple[int, int]] = deque(maxlen=_SECONDS + 1)
        """Of the seconds in which there were any: which, and how many."""

    def count(self, tokens: int) -> None:
        """So many more came now."""
        second = int(self._clock())
        if self._counts and self._counts[-1][0] == second:
            tokens += self._counts.pop()[1]
        self._counts.append((second, tokens))

    @property
    def per_second(self) -> float:
        """The second that has not ended yet is left out."""
        this = int(self._clock())
        return sum(tokens for second, tokens in self._counts if this - _SECONDS <= second < this) / _SECONDS
