"""Parts of a pass: rows with equally many tokens, side by side in one flat sequence of tokens; a linear over them.

Shapes: B rows, T tokens a row, N tokens of the pass, R a module's triplets, d_in and d_out a weight's sizes, H query
heads, G key/value heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.attention import Attending
from osora_core.inference.cache import CacheView
from osora_core.inference.row_adapters import AdapterView
from osora_core.linear import OsoraLinear, add_loras

# A segment of its own costs about as much as so many tokens of padding.
PADDING = 8


@dataclass(frozen=True)
class Segment:
    """Tokens [first, first + B T) of a pass: those of the B rows that `cache` and `adapters` are about."""

    first: int
    rows: int
    steps: int
    cache: CacheView
    adapters: AdapterView
    whole: bool
    """Whether these are all tokens of the pass."""

    def of(self, flat: Tensor) -> Tensor:
        """This segment's part of flat [..., N, k], as [..., B, T, k], or [..., B, k] where each row has one token."""
        part = flat if self.whole else flat.narrow(-2, self.first, self.rows * self.steps)
        return part if self.steps == 1 else part.view(*part.shape[:-2], self.rows, self.steps, -1)

    def by_row(self, flat: Tensor) -> Tensor:
        """This segment's part of flat [N, k] as [B, T, k]."""
        return flat[self.first : self.first + self.rows * self.steps].view(self.rows, self.steps, -1)

    def scale(self, z: Tensor, module: int, into: Tensor) -> None:
        """sigma z above (s0 + sigma) z of a module, both with the C z of rows with a mix: this segment's part of `into`
        [2, N, R], from z [N, R]."""
        own, scaled = self.of(z), self.of(into)
        torch.mul(own, self.adapters.scales[module][..., : z.shape[-1]], out=scaled)
        for mixes in self.adapters.mixes:
            mixes.add(module, own, scaled)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """What this segment's tokens see: query [N, H, D], key and value [N, G, D] -> [B T, H D]."""
        own = slice(self.first, self.first + self.rows * self.steps)
        query, key, value = query[own], key[own], value[own]
        if self.steps == 1:
            return self.cache.attend_one(layer, query, key, value, scaling)
        query, key, value = (x.view(self.rows, self.steps, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
        return self.cache.attend(layer, query, key, value, Attending(scaling)).reshape(self.rows * self.steps, -1)


def linear(layer: OsoraLinear, x: Tensor, segments: Sequence[Segment]) -> Tensor:
    """What `layer` makes of x [N, d_in], the tokens of the segments, [N, d_out].

    The update of `osora_core.operator`, its two products with U as one: both have the same right-hand side.
    """
    y: Tensor = add_loras(layer.index, x, layer.base(x))
    rank = min(max(segment.adapters.rank for segment in segments), layer.S.shape[0])
    if rank == 0:
        return y
    z = F.linear(x, layer.Vt[:rank])
    scaled = z.new_empty(2, *z.shape)
    for segment in segments:
        segment.scale(z, layer.index, scaled)
    inner, outer = F.linear(scaled, layer.U[:, :rank])
    y = y + inner
    for segment in segments:
        delta = segment.adapters.deltas[layer.index].to(x.dtype)
        segment.of(y).addcmul_(delta, segment.of(outer))
    return y


def segments_of(lengths: Sequence[int]) -> list[slice]:
    """Which neighbouring rows, with chunks of these lengths, to pad to one length as a segment: little is padding."""
    found: list[slice] = []
    begin = 0
    for end in range(1, len(lengths) + 1):
        own = lengths[begin : end + 1]
        if end == len(lengths) or max(own) * len(own) - sum(own) > PADDING:
            found.append(slice(begin, end))
            begin = end
    return found
