"""The update of mixed slots with a backward pass of its own, which keeps little. Shapes: see the package."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.operator.reference import effective_scale, osora_update_reference, per_token, within_rank


class _Update(torch.autograd.Function):
    """The update with a hand-written backward that keeps z (R values a token) and not x or U(s*z) (d values a token).

    With g = dL/dy, a1 = U^T g and a2 = U^T (delta * g):
        dL/dx = V (sigma * a1 + s * a2);  dL/dsigma = sum z * (a1 + a2);  dL/ddelta = sum g * U (s * z),
    the sums running over the tokens of a slot.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, slots: Tensor,
        ranks: Tensor,
    ) -> Tensor:  # fmt: skip
        scale = effective_scale(S, sigma, ranks)
        z = F.linear(x, Vt)
        ctx.save_for_backward(z, U, Vt, sigma, delta, scale, slots, ranks)
        inner = F.linear((per_token(sigma, slots, x) * z).to(x.dtype), U)
        outer = F.linear((per_token(scale, slots, x) * z).to(x.dtype), U)
        return (inner + per_token(delta, slots, x) * outer).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grad_outputs
        z, U, Vt, sigma, delta, scale, slots, ranks = ctx.saved_tensors
        dtype = z.dtype
        a1 = F.linear(g, U.T)
        a2 = F.linear((per_token(delta, slots, g) * g).to(dtype), U.T)
        grad_x = grad_sigma = grad_delta = None
        if ctx.needs_input_grad[0]:
            a = per_token(sigma, slots, g) * a1 + per_token(scale, slots, g) * a2
            grad_x = F.linear(a.to(dtype), Vt.T)
        if ctx.needs_input_grad[4]:
            grad_sigma = _sum_by_slot(z.to(sigma.dtype) * (a1 + a2), slots, sigma) * within_rank(ranks, sigma.shape[1])
        if ctx.needs_input_grad[5]:
            outer = F.linear((per_token(scale, slots, g) * z).to(dtype), U)
            grad_delta = _sum_by_slot(g.to(delta.dtype) * outer, slots, delta)
        return grad_x, None, None, None, grad_sigma, grad_delta, None, None


def _sum_by_slot(values: Tensor, slots: Tensor, like: Tensor) -> Tensor:
    """Segment sum: values [..., k] added into the row of `like` [n, k] that each token's slot names.

    A product with the 0/1 membership matrix: exact, in one order on every device (index_add is neither on a GPU).
    What is not finite makes its own slot's sum nan and touches no other's, though 0 * nan is nan.
    """
    if values.dim() == 3 and slots.dim() == 1:
        values = values.sum(dim=1)
    members = (torch.arange(like.shape[0], device=slots.device).unsqueeze(1) == slots.reshape(1, -1)).to(like.dtype)
    values = values.reshape(-1, like.shape[1]).to(like.dtype)
    broken = ~values.isfinite()
    hit = members @ broken.any(dim=1, keepdim=True).to(like.dtype)
    return (members @ values.masked_fill(broken, 0)).masked_fill(hit > 0, torch.nan)


def osora_update(
    x: Tensor,
    U: Tensor,
    S: Tensor,
    Vt: Tensor,
    sigma: Tensor,
    delta: Tensor,
    slots: Tensor,
    ranks: Tensor,
) -> Tensor:
    """The update of `osora_update_reference`, with the memory-saving backward where gradients are wanted."""
    if torch.is_grad_enabled() and (x.requires_grad or sigma.requires_grad or delta.requires_grad):
        update: Tensor = _Update.apply(x, U, S, Vt, sigma, delta, slots, ranks)  # type: ignore[no-untyped-call]
        return update
    return osora_update_reference(x, U, S, Vt, sigma, delta, slots, ranks)
