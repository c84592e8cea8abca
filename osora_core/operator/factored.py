"""The update of one adapter through B [d_out, r], as LoRA has it, and as a dense weight. Shapes: see the package."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.basis import Factors


def lora_factor(U: Tensor, S: Tensor, sigma: Tensor, delta: Tensor) -> Tensor:
    """B [d_out, r] with update = B V^T x: diag(o) U diag(s) - U diag(s0), for sigma [r] and delta [d_out] (float32).

    Written as U * (sigma + delta s^T), which does not subtract large values to get small ones.
    """
    rank = sigma.shape[0]
    return U[:, :rank] * torch.addr(sigma, delta, S[:rank] + sigma)


class _Factored(torch.autograd.Function):
    """y plus the update of one adapter through its B, for many tokens: half the products of the general form.

    Backward keeps z [T, r] alone. With M = U * (g^T z): dL/dsigma = (1 + delta)^T M, dL/ddelta = M s.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor
    ) -> Tensor:
        z = F.linear(x, Vt[: sigma.shape[0]])
        ctx.save_for_backward(z, U, S, Vt, sigma, delta)
        return torch.addmm(y, z, lora_factor(U, S, sigma, delta).to(U.dtype).T)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grad_outputs
        z, U, S, Vt, sigma, delta = ctx.saved_tensors
        rank = sigma.shape[0]
        grad_x = grad_sigma = grad_delta = None
        if ctx.needs_input_grad[0]:
            grad_x = g @ lora_factor(U, S, sigma, delta).to(U.dtype) @ Vt[:rank]
        if ctx.needs_input_grad[5] or ctx.needs_input_grad[6]:
            moment = (U[:, :rank] * (g.T @ z)).to(sigma.dtype)
            grad_sigma = (1 + delta) @ moment
            grad_delta = moment @ (S[:rank] + sigma)
        return grad_x, g, None, None, None, grad_sigma, grad_delta


def osora_add(x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor) -> Tensor:
    """y [..., d_out] plus the update of one adapter, sigma [r] and delta [d_out], for all of x [..., d_in].

    Computed in the factors' dtype, or in autocast's where it is on; returned in y's.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return osora_add(x, y, U.to(dtype), S, Vt.to(dtype), sigma, delta)
    tokens, base = x.flatten(0, -2).to(U.dtype), y.flatten(0, -2).to(U.dtype)
    added: Tensor = _Factored.apply(tokens, base, U, S, Vt, sigma, delta)  # type: ignore[no-untyped-call]
    return added.view(y.shape).to(y.dtype)


def merged_weight(weight: Tensor, factors: Factors, sigma: Tensor, delta: Tensor) -> Tensor:
    """W0 + diag(o) U diag(s) V^T - U diag(s0) V^T for sigma [r] and delta [d_out] of one adapter.

    [d_out, d_in] in weight's dtype: summed in float64 and rounded once.
    """
    return (weight.double() + dense_update(factors, sigma, delta)).to(weight.dtype)


def dense_update(factors: Factors, sigma: Tensor, delta: Tensor) -> Tensor:
    """What an adapter adds to a weight, [d_out, d_in] in float64; sigma [r], delta [d_out]."""
    factor = lora_factor(factors.U.double(), factors.S.double(), sigma.double(), delta.double())
    return factor @ factors.Vt[: sigma.shape[0]].double()
