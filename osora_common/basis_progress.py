"""How far the computation of a base's basis is: as a line of a log, and read from one."""

import re
from dataclasses import dataclass

_LINE = re.compile(r"basis of (\S+): (\d+) of (\d+) weights \(\d+ %\)(?:, about (\d+) s left)?")


@dataclass(frozen=True)
class BasisProgress:
    """Of the base's weights `done` are decomposed; seconds_left is an estimate, None where there is none yet."""

    base: str
    done: int
    total: int
    seconds_left: int | None = None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", about {self.seconds_left} s left"
        return f"basis of {self.base}: {self.done} of {self.total} weights ({100 * self.done // self.total} %){left}"

    @property
    def share(self) -> float:
        return self.done / self.total

    @classmethod
    def last_in(cls, log: str) -> "BasisProgress | None":
        """What the last such line of a log says."""
        found = _LINE.findall(log)
        if not found:
            return None
        base, done, total, left = found[-1]
        return cls(base, int(done), int(total), int(left) if left else None)
