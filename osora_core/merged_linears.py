"""The linears of all layers of a small base as dense weights with their updates, those that read the same input as one.

Part of `osora_core.merged_decoder`, which says what the shapes are; l layers of L, c the size of a mix, M its values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.linear import OsoraLinear
from osora_core.mix import MixSpan, mix_spans


@dataclass(frozen=True)
class Slot:
    """What lies in a slot of the bank: vectors [L, P / L], of which it uses the triplets below its rank, and, where it
    has a mix, the values of that [L, M / L] with where they lie."""

    vectors: Tensor
    rank: int
    mix: Tensor | None = None
    spans: Sequence[MixSpan] = ()

    @classmethod
    def of(cls, bank: Bank, slot: int, layers: int, dtype: torch.dtype) -> "Slot":
        vectors, mix = bank.values[slot].detach().to(dtype).view(layers, -1), bank.mixes.get(slot)
        if mix is None:
            return cls(vectors, int(bank.ranks[slot]))
        spans = mix_spans(bank.basis.spans, bank.mix_sizes[slot])
        return cls(vectors, int(bank.ranks[slot]), mix.detach().to(dtype).view(layers, -1), spans)


@dataclass(frozen=True)
class _Stack:
    """The linears of one name in all layers: U [L, d_out, R], S [L, R], Vt [L, R, d_in]. outputs: where theirs are
    among the group's; sigma, delta: where theirs are among the values of a layer; index: of the first layer's in the
    basis."""

    U: Tensor
    S: Tensor
    Vt: Tensor
    outputs: slice
    sigma: slice
    delta: slice
    index: int

    def own(self, slot: Slot, layers: slice) -> tuple[Tensor, Tensor, Tensor]:
        """sigma [l, 1, r], s0 + sigma [l, 1, r] and delta [l, d_out, 1] of l layers."""
        sigma = slot.vectors[layers, self.sigma][:, : slot.rank].unsqueeze(1)
        return sigma, self.S[layers, : slot.rank].unsqueeze(1) + sigma, slot.vectors[layers, self.delta].unsqueeze(2)

    def mixed(self, slot: Slot, layers: slice) -> tuple[MixSpan, Tensor, Tensor] | None:
        """Where C lies in a layer's mixes, U [l, d_out, c] and U C [l, d_out, c], if there is a mix."""
        if slot.mix is None:
            return None
        span = slot.spans[self.index]
        C, U = slot.mix[layers, span.values].view(-1, span.size, span.size), self.U[layers, :, : span.size]
        return span, U, U @ C


class Group:
    """Linears that read the same input, as one: weight [L, outputs, d_in], bias [L, outputs] if they have one."""

    def __init__(self, layers: Sequence[Sequence[OsoraLinear]], norms: Sequence[Tensor] | None, basis: Basis) -> None:
        """layers: the linears of each layer; norms: the weights [d_in] of the norm before them, if there is one."""
        scales = None if norms is None else torch.stack([*norms]).unsqueeze(1)

        def laid_out(tensors: Sequence[Tensor]) -> Tensor:
            stacked = torch.stack([*tensors])
            return stacked if scales is None else stacked * scales

        self.weight = laid_out([torch.cat([base_of(linear).weight for linear in linears]) for linears in layers])
        biases: list[list[Tensor]] = [[base_of(linear).bias for linear in linears] for linears in layers]
        self.bias = None if biases[0][0] is None else torch.stack([torch.cat(own) for own in biases])
        self._stacks: list[_Stack] = []
        first = 0
        for linears in zip(*layers, strict=True):
            span = basis.spans[linears[0].index]
            U, S = (torch.stack([getattr(linear, name) for linear in linears]) for name in ("U", "S"))
            Vt = laid_out([linear.Vt for linear in linears])
            outputs = slice(first, first + span.d_out)
            self._stacks.append(_Stack(U, S.to(U.dtype), Vt, outputs, span.sigma, span.delta, linears[0].index))
            first += span.d_out

    @property
    def costs(self) -> tuple[int, int]:
        """Products that a dense weight takes, and those that it saves a token, over R; see `operator.choice`."""
        shapes = [(stack.U.shape[1], stack.Vt.shape[2]) for stack in self._stacks]
        layers = len(self.weight)
        return sum(2 * layers * out * d_in for out, d_in in shapes), sum(
            layers * (d_in + 4 * out) for out, d_in in shapes
        )

    def merge(self, slot: Slot, layers: slice, into: Tensor) -> None:
        """Write W0 + B V^T of these layers' linears into `into` [L, outputs, d_in], with the B of
        `operator.factored.lora_factor`."""
        for stack in self._stacks:
            sigma, scale, delta = stack.own(slot, layers)
            factor = torch.addcmul(sigma, delta, scale).mul_(stack.U[layers, :, : slot.rank])
            if (mixed := stack.mixed(slot, layers)) is not None:
                span, _, U_C = mixed
                factor[..., : span.size].addcmul_(1 + delta, U_C)
            own = into[layers, stack.outputs]
            torch.baddbmm(self.weight[layers, stack.outputs], factor, stack.Vt[layers, : slot.rank], out=own)

    def gradients(self, slot: Slot, layers: slice, x: Tensor, g: Tensor, into: Tensor, mix_into: Tensor | None) -> None:
        """Write dL/dsigma and dL/ddelta of these layers into `into` [L, P / L], and dL/dC, where there is a mix, into
        `mix_into` [L, M / L], from inputs x [L, N, d_in] and g [L, N, outputs].

        With M = U * (g^T z): dL/dsigma = (1 + delta)^T M and dL/ddelta = M (s0 + sigma); see also
        `operator.factored.mix_gradients`.
        """
        for stack in self._stacks:
            _, scale, delta = stack.own(slot, layers)
            z = x[layers] @ stack.Vt[layers, : slot.rank].mT
            moment = g[layers, :, stack.outputs].mT @ z
            of_mix: Tensor | None = None
            if mix_into is not None and (mixed := stack.mixed(slot, layers)) is not None:
                span, U, U_C = mixed
                of_C = moment[..., : span.size]
                mix_into[layers, span.values] = (U.mT @ ((1 + delta) * of_C)).flatten(1)
                of_mix = (U_C * of_C).sum(dim=2)
            moment.mul_(stack.U[layers, :, : slot.rank])
            into[layers, stack.sigma][:, : slot.rank] = ((1 + delta).mT @ moment).squeeze(1)
            of_delta = (moment @ scale.mT).squeeze(2)
            into[layers, stack.delta] = of_delta if of_mix is None else of_delta + of_mix


def base_of(linear: OsoraLinear) -> nn.Linear:
    return cast(nn.Linear, linear.base)
