"""Where an adapter's mix lies: the C [c, c] of each of its modules, behind all sigma and delta of its row.

The mix is an extension of ours and no part of the paper's method: see `osora_core.operator`. A row of an adapter
without one is [P] (`Basis.row_length`), and [P + M] of one with mixes of size c.
"""

from functools import lru_cache
from typing import NamedTuple

from osora_core.basis import Span


class MixSpan(NamedTuple):
    """Where one module's C [size, size] lies among the M values of a row's mixes, row by row, from `start` on. size: c,
    or the module's own full rank where that is smaller."""

    size: int
    start: int

    @property
    def values(self) -> slice:
        return slice(self.start, self.start + self.size**2)


@lru_cache(maxsize=64)
def mix_spans(spans: tuple[Span, ...], c: int) -> tuple[MixSpan, ...]:
    """Of each module of a basis, in its order, for mixes of size c; 0 is none."""
    found: list[MixSpan] = []
    start = 0
    for span in spans:
        size = min(c, span.rank)
        found.append(MixSpan(size, start))
        start += size**2
    return tuple(found)


def mix_length(spans: tuple[Span, ...], c: int) -> int:
    """M, the values of a row's mixes of size c."""
    last = mix_spans(spans, c)[-1]
    return last.start + last.size**2
