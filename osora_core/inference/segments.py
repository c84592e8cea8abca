"""Parts of a pass: rows with equally many tokens, side by side in one flat sequence of tokens.

Shapes: B rows, T tokens a row, N tokens of the pass, R a module's triplets, H query heads, G key/value heads, D head
size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from osora_core.inference.cache import CacheView
from osora_core.inference.lanes import Window

# A segment of its own costs about as much as so many tokens of padding.
_PADDING = 8


@dataclass(frozen=True)
class Segment:
    """Tokens [first, first + B T) of a pass: those of the B rows that `cache` and `window` are about."""

    first: int
    rows: int
    steps: int
    cache: CacheView
    window: Window

    def of(self, flat: Tensor) -> Tensor:
        """This segment's part of flat [..., N, k], as [..., B, T, k]."""
        part = flat.narrow(-2, self.first, self.rows * self.steps)
        return part.view(*part.shape[:-2], self.rows, self.steps, part.shape[-1])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """What this segment's tokens see: query [N, H, D], key and value [N, G, D] -> [B T, H D]."""
        own = slice(self.first, self.first + self.rows * self.steps)
        query, key, value = query[own], key[own], value[own]
        if self.steps == 1:
            return self.cache.attend_one(layer, query, key, value, scaling)
        query, key, value = (x.view(self.rows, self.steps, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
        return self.cache.attend(layer, query, key, value, scaling).reshape(self.rows * self.steps, -1)


def runs_of(lengths: Sequence[int]) -> list[slice]:
    """Neighbours to be padded to one length, so that little is padding."""
    runs: list[slice] = []
    begin = 0
    for end in range(1, len(lengths) + 1):
        own = lengths[begin : end + 1]
        if end == len(lengths) or max(own) * len(own) - sum(own) > _PADDING:
            runs.append(slice(begin, end))
            begin = end
    return runs
