"""The whole operator through one dense weight a slot. Shapes: see the package."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.operator.reference import effective_scale, within_rank
from osora_core.operator.runs import Run

_KEPT_VALUES = 2**20
"""Values of dense weights that a layer keeps for its backward pass: 4 MiB, which a small base can spare."""


class _Merged(torch.autograd.Function):
    """The whole operator through one dense weight a run: fewer operations where a slot has many tokens.

    With C = sigma + delta * s (an outer sum, [d_out, R]) a slot's weight is W0 + (U * C) V^T. The backward pass needs
    z: with M = g^T z, dL/dsigma = (1 + delta)^T (U * M) and dL/ddelta = (U * M) s. For dL/dx it needs the dense
    weights too: small ones are kept, large ones are computed a second time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor,
        delta: Tensor, ranks: Tensor, runs: Sequence[Run],
    ) -> Tensor:  # fmt: skip
        scale = effective_scale(S, sigma, ranks)
        z = F.linear(x, Vt)
        ctx.save_for_backward(z, weight, U, Vt, sigma, delta, scale, ranks)
        ctx.runs = runs
        rows, kept = [], []
        keeps = len(runs) * weight.numel() <= _KEPT_VALUES
        for slot, start, stop in runs:
            dense = _Merged.weight(weight, U, Vt, sigma[slot], delta[slot], scale[slot])
            rows.append(F.linear(x[start:stop], dense, bias))
            kept += [dense] if keeps else []
        ctx.kept = kept
        return _join(rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grad_outputs
        z, weight, U, Vt, sigma, delta, scale, ranks = ctx.saved_tensors
        grad_rows = []
        grad_sigma, grad_delta = torch.zeros_like(sigma), torch.zeros_like(delta)
        kept, ctx.kept = ctx.kept, []
        for index, (slot, start, stop) in enumerate(ctx.runs):
            gs, zs = g[start:stop].flatten(0, -2), z[start:stop].flatten(0, -2)
            if ctx.needs_input_grad[0]:
                weighing = (weight, U, Vt, sigma[slot], delta[slot], scale[slot])
                dense = kept[index] if kept else _Merged.weight(*weighing)
                grad_rows.append((gs @ dense).view(*g[start:stop].shape[:-1], -1))
            moment = U * (gs.T @ zs)
            grad_sigma[slot] += (1 + delta[slot]) @ moment
            grad_delta[slot] += moment @ scale[slot]
        grad_sigma *= within_rank(ranks, sigma.shape[1])
        grad_x = _join(grad_rows) if grad_rows else None
        return grad_x, None, None, None, None, None, grad_sigma, grad_delta, None, None

    @staticmethod
    def weight(weight: Tensor, U: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, scale: Tensor) -> Tensor:
        return torch.addmm(weight, U * (sigma + torch.outer(delta, scale)), Vt)


def _join(rows: list[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def osora_linear_merged(
    x: Tensor, weight: Tensor, bias: Tensor | None, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor,
    ranks: Tensor, runs: Sequence[Run],
) -> Tensor:  # fmt: skip
    """W0 x + bias + update for x [B, T, d_in] whose rows are grouped by slot; `runs` covers all of them.

    weight [d_out, d_in]. For float32 and wider only: a sum with W0 in bfloat16 would lose small updates.
    """
    y: Tensor = _Merged.apply(x, weight, bias, U, S, Vt, sigma, delta, ranks, runs)  # type: ignore[no-untyped-call]
    return y
