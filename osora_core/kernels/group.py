"""Linears that read the same input, stacked so that one product gives the outputs and the z of all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osora_core.basis import Span
from osora_core.linear import LowRank, OsoraLinear

# Rows of V^T are padded to a multiple of this, so that products and loads stay aligned.
_ALIGNMENT = 16


@dataclass(frozen=True)
class Group:
    """n linears with D outputs in all.

    weight [D + n K, d_in]: their weights, then the V^T of each, padded to K rows; U [D, K]; S [n, K] float32; bias [D]
    if they have one. ranks: how many of the K are real. columns: where in a slot's vectors the sigma of each begins.
    modules: the index of each in the basis, and its outputs among the D.
    """

    weight: Tensor
    U: Tensor
    S: Tensor
    bias: Tensor | None
    ranks: tuple[int, ...]
    columns: tuple[int, ...]
    modules: tuple[tuple[int, slice], ...]

    @classmethod
    def stack(cls, layers: Sequence[OsoraLinear], spans: Sequence[Span]) -> "Group":
        """Lay the linears out together. Their own weights and factors become views, so nothing is in memory twice;
        every number stays what it was."""
        bases = [cast(nn.Linear, layer.base) for layer in layers]
        sizes, ranks = [base.out_features for base in bases], [layer.S.shape[0] for layer in layers]
        padded = -(-max(ranks) // _ALIGNMENT) * _ALIGNMENT
        like, D = bases[0].weight, sum(sizes)
        weight = like.new_zeros(D + len(layers) * padded, like.shape[1])
        U, S = like.new_zeros(D, padded), layers[0].S.new_zeros(len(layers), padded)
        modules = []
        first = 0
        for index, (layer, base, size, rank) in enumerate(zip(layers, bases, sizes, ranks, strict=True)):
            z = D + index * padded
            S[index, :rank] = layer.S
            for tensor, view in (
                (base.weight, weight[first : first + size]),
                (layer.Vt, weight[z : z + rank]),
                (layer.U, U[first : first + size, :rank]),
            ):
                tensor.data = view.copy_(tensor)
            modules.append((layer.index, slice(first, first + size)))
            first += size
        biases: list[Tensor] = [base.bias for base in bases if base.bias is not None]
        columns = tuple(spans[layer.index].start for layer in layers)
        return cls(weight, U, S, torch.cat(biases) if biases else None, tuple(ranks), columns, tuple(modules))

    def apply(self, h: Tensor, adapted: bool, loras: LowRank | None) -> Tensor:
        """h [N, d_in] -> [N, D + n K], or [N, D] for the bare base; without bias, with what LoRAs add to the D."""
        y = F.linear(h, self.weight if adapted else self.weight[: self.U.shape[0]])
        if loras is not None:
            for index, outputs in self.modules:
                y[:, outputs] = loras.add(index, h, y[:, outputs])
        return y
