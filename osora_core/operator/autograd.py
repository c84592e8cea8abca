"""The update of mixed slots with a backward pass of its own, which keeps little. Shapes: see the package."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.operator.mixes import Mixes, sum_by_slot
from osora_core.operator.reference import effective_scale, osora_update_reference, per_token, within_rank


class _Update(torch.autograd.Function):
    """The update with a hand-written backward that keeps z (R values a token) and not x or U(s*z) (d values a token).

    With g = dL/dy, a1 = U^T g and a2 = U^T (delta * g):
        dL/dx = V (sigma * a1 + s * a2 + C^T (a1 + a2));  dL/dsigma = sum z * (a1 + a2);
        dL/dC = sum (a1 + a2) z^T;  dL/ddelta = sum g * U (s * z + C z),
    the sums running over the tokens of a slot.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, slots: Tensor,
        ranks: Tensor, mixes: Sequence[Mixes], *_: Tensor,
    ) -> Tensor:  # fmt: skip
        scale = effective_scale(S, sigma, ranks)
        z = F.linear(x, Vt)
        ctx.save_for_backward(z, U, Vt, sigma, delta, scale, slots, ranks)
        ctx.mixes = mixes
        inner_z, outer_z = per_token(sigma, slots, x) * z, per_token(scale, slots, x) * z
        for mix in mixes:
            mix.add(z, inner_z, outer_z)
        inner, outer = F.linear(inner_z.to(x.dtype), U), F.linear(outer_z.to(x.dtype), U)
        return (inner + per_token(delta, slots, x) * outer).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grad_outputs
        z, U, Vt, sigma, delta, scale, slots, ranks = ctx.saved_tensors
        mixes, dtype = ctx.mixes, z.dtype
        a1 = F.linear(g, U.T)
        a2 = F.linear((per_token(delta, slots, g) * g).to(dtype), U.T)
        grad_x = grad_sigma = grad_delta = None
        if ctx.needs_input_grad[0]:
            a = per_token(sigma, slots, g) * a1 + per_token(scale, slots, g) * a2
            for mix in mixes:
                mix.add(a1 + a2, a, transposed=True)
            grad_x = F.linear(a.to(dtype), Vt.T)
        if ctx.needs_input_grad[4]:
            grad_sigma = sum_by_slot(z.to(sigma.dtype) * (a1 + a2), slots, sigma) * within_rank(ranks, sigma.shape[1])
        if ctx.needs_input_grad[5]:
            outer_z = per_token(scale, slots, g) * z
            for mix in mixes:
                mix.add(z, outer_z)
            outer = F.linear(outer_z.to(dtype), U)
            grad_delta = sum_by_slot(g.to(delta.dtype) * outer, slots, delta)
        grad_mixes = (
            mix.gradient(a1 + a2, z) if wanted else None
            for mix, wanted in zip(mixes, ctx.needs_input_grad[9:], strict=True)
        )
        return grad_x, None, None, None, grad_sigma, grad_delta, None, None, None, *grad_mixes


def osora_update(
    x: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, slots: Tensor, ranks: Tensor,
    mixes: Sequence[Mixes] = (),
) -> Tensor:  # fmt: skip
    """The update of `osora_update_reference`, with the memory-saving backward where gradients are wanted.

    mixes: those of the batch, one for each size that there is.
    """
    if mixes or (torch.is_grad_enabled() and (x.requires_grad or sigma.requires_grad or delta.requires_grad)):
        of_mixes = [mix.C for mix in mixes]
        update: Tensor = _Update.apply(x, U, S, Vt, sigma, delta, slots, ranks, mixes, *of_mixes)  # type: ignore[no-untyped-call]
        return update
    return osora_update_reference(x, U, S, Vt, sigma, delta, slots, ranks)
