"""The whole operator through one dense weight a slot. Shapes: see the package."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.operator.factored import lora_factor, mix_gradients
from osora_core.operator.mixes import Mixes
from osora_core.operator.runs import Run

_KEPT_VALUES = 2**20
"""Values of dense weights that a layer keeps for its backward pass: 4 MiB, which a small base can spare."""


class _Merged(torch.autograd.Function):
    """The whole operator through one dense weight a run: fewer operations where a slot has many tokens.

    A slot's weight is W0 + B V^T, with the B of `factored.lora_factor`. The backward pass needs z: with M = g^T z,
    dL/dsigma = (1 + delta)^T (U * M) and dL/ddelta = (U * M) s; see also `factored.mix_gradients`. For dL/dx it needs
    the dense weights too: small ones are kept, large ones are computed a second time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor,
        delta: Tensor, ranks: Tensor, runs: Sequence[Run], mixes: Sequence[Mixes], *_: Tensor,
    ) -> Tensor:  # fmt: skip
        z = F.linear(x, Vt)
        ctx.save_for_backward(z, weight, U, S, Vt, sigma, delta)
        ctx.runs, ctx.ranks, ctx.mixes = runs, ranks.tolist(), mixes
        rows, kept = [], []
        keeps = len(runs) * weight.numel() <= _KEPT_VALUES
        for slot, start, stop in runs:
            dense = _dense(weight, U, S, Vt, sigma[slot, : ctx.ranks[slot]], delta[slot], _mix(mixes, slot))
            rows.append(F.linear(x[start:stop], dense, bias))
            kept += [dense] if keeps else []
        ctx.kept = kept
        return _join(rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grad_outputs
        z, weight, U, S, Vt, sigma, delta = ctx.saved_tensors
        grad_rows = []
        grad_sigma, grad_delta = torch.zeros_like(sigma), torch.zeros_like(delta)
        grad_mixes = [torch.zeros_like(mix.C, memory_format=torch.contiguous_format) for mix in ctx.mixes]
        kept, ctx.kept = ctx.kept, []
        for index, (slot, start, stop) in enumerate(ctx.runs):
            rank = ctx.ranks[slot]
            own_sigma, own_delta, own_mix = sigma[slot, :rank], delta[slot], _mix(ctx.mixes, slot)
            gs, zs = g[start:stop].flatten(0, -2), z[start:stop, ..., :rank].flatten(0, -2)
            if ctx.needs_input_grad[0]:
                dense = kept[index] if kept else _dense(weight, U, S, Vt, own_sigma, own_delta, own_mix)
                grad_rows.append((gs @ dense).view(*g[start:stop].shape[:-1], -1))
            moment = gs.T @ zs
            for mix, grad in zip(ctx.mixes, grad_mixes, strict=True):
                if (own := mix.of_slot.get(slot)) is not None:
                    of_mix, of_delta = mix_gradients(U, own_delta, mix.C[own], moment)
                    grad[own] += of_mix
                    grad_delta[slot] += of_delta
            moment *= U[:, :rank]
            grad_sigma[slot, :rank].addmv_(moment.T, 1 + own_delta)
            grad_delta[slot].addmv_(moment, S[:rank] + own_sigma)
        grad_x = _join(grad_rows) if grad_rows else None
        return grad_x, None, None, None, None, None, grad_sigma, grad_delta, None, None, None, *grad_mixes


def _dense(
    weight: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, mix: Tensor | None
) -> Tensor:
    return torch.addmm(weight, lora_factor(U, S, sigma, delta, mix), Vt[: len(sigma)])


def _mix(mixes: Sequence[Mixes], slot: int) -> Tensor | None:
    """A slot's C [c, c], if it has one."""
    return next((mix.C[mix.of_slot[slot]] for mix in mixes if slot in mix.of_slot), None)


def _join(rows: list[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def osora_linear_merged(
    x: Tensor, weight: Tensor, bias: Tensor | None, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor,
    ranks: Tensor, runs: Sequence[Run], mixes: Sequence[Mixes] = (),
) -> Tensor:  # fmt: skip
    """W0 x + bias + update for x [B, T, d_in] whose rows are grouped by slot; `runs` covers all of them.

    weight [d_out, d_in]; mixes as in `osora_update`. For float32 and wider only: a sum with W0 in bfloat16 would lose
    small updates.
    """
    of_mixes = [mix.C for mix in mixes]
    y: Tensor = _Merged.apply(x, weight, bias, U, S, Vt, sigma, delta, ranks, runs, mixes, *of_mixes)  # type: ignore[no-untyped-call]
    return y
