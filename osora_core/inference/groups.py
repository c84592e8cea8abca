"""Linears that read the same input, computed together: few and fast products, for decoding on a CPU.

Shapes: N tokens of a pass, d_in and d_out a weight's sizes, R a module's triplets.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from osora_core.inference.segments import Segment
from osora_core.linear import OsoraLinear
from osora_core.products import Packed, frozen_linear, is_plain, linear


class Group:
    """One or more modules with the same input.

    `keeps`: whether weights and factors may be held once more, stacked and in the layout that computes fastest.
    """

    def __init__(self, layers: Sequence[OsoraLinear], *, keeps: bool) -> None:
        self._layers = layers
        self._keeps = keeps
        plain = [layer.base for layer in layers if is_plain(layer.base)]
        # A quantised weight is computed by its own layer.
        self._base = _Stacked(plain) if keeps and len(plain) == len(layers) else None
        self._factors: dict[int, _Factors] = {}

    def __call__(self, x: Tensor, segments: Sequence[Segment]) -> Sequence[Tensor]:
        """What each module makes of x [N, d_in], the tokens of the segments.

        The update of `osora_core.operator`, its two products with U as one: both have the same right-hand side.
        """
        ys = self._base(x) if self._base is not None else [frozen_linear(layer.base, x) for layer in self._layers]
        rank = max(segment.window.rank for segment in segments)
        if rank:
            parts = self._kept(rank)(x) if self._keeps else self._project(x, rank)
            for layer, y, (z, expand) in zip(self._layers, ys, parts, strict=True):
                scaled = z.new_empty(2, *z.shape)
                for segment in segments:
                    segment.scale(z, layer.index, scaled)
                inner, outer = expand(scaled).unbind()
                y.add_(inner)
                for segment in segments:
                    delta = segment.window.deltas[layer.index].to(x.dtype)
                    segment.of(y).addcmul_(delta, segment.of(outer))
        return ys

    def _project(self, x: Tensor, rank: int) -> "_Parts":
        return [(linear(x, la.Vt[:rank]), partial(linear, weight=la.U[:, :rank])) for la in self._layers]

    def _kept(self, rank: int) -> "_Factors":
        # Few different sizes, so that what is kept is at most twice the basis.
        rank = 2 ** (rank - 1).bit_length()
        if rank not in self._factors:
            self._factors[rank] = _Factors(self._layers, rank)
        return self._factors[rank]


_Parts = Sequence[tuple[Tensor, Callable[[Tensor], Tensor]]]
"""For each module z = V^T x [N, R], and the product with U [d_out, R]."""


class _Factors:
    """V^T of a group's modules, one above the other, and each one's U, for adapters of at most `rank` triplets."""

    def __init__(self, layers: Sequence[OsoraLinear], rank: int) -> None:
        self._project = Packed(torch.cat([layer.Vt[:rank] for layer in layers]))
        self._expand = [Packed(layer.U[:, :rank]) for layer in layers]
        self._sizes = [min(rank, layer.S.shape[0]) for layer in layers]

    def __call__(self, x: Tensor) -> _Parts:
        return list(zip(torch.split(self._project(x), self._sizes, dim=-1), self._expand, strict=True))


class _Stacked:
    """The bare base's part of a group."""

    def __init__(self, bases: Sequence[nn.Linear]) -> None:
        self._sizes = [base.out_features for base in bases]
        weights = [base.weight.detach() for base in bases]
        biases = [
            weights[0].new_zeros(base.out_features) if base.bias is None else base.bias.detach() for base in bases
        ]
        has_bias = any(base.bias is not None for base in bases)
        self._product = Packed(torch.cat(weights), torch.cat(biases) if has_bias else None)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return torch.split(self._product(x), self._sizes, dim=-1)
