"""The update of one adapter through B [d_out, r], as LoRA has it, and as a dense weight. Shapes: see the package."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.basis import Factors


def lora_factor(U: Tensor, S: Tensor, sigma: Tensor, delta: Tensor, mix: Tensor | None = None) -> Tensor:
    """B [d_out, r] with update = B V^T x: diag(o) U (diag(s) + C) - U diag(s0), for sigma [r], delta [d_out] and the C
    [c, c] of a mix (float32), None for no mix.

    Written as U * (sigma + delta s^T) + diag(o) U C, which does not subtract large values to get small ones.
    """
    rank = sigma.shape[0]
    factor = U[:, :rank] * torch.addr(sigma, delta, S[:rank] + sigma)
    if mix is not None:
        factor[:, : len(mix)] += (1 + delta).unsqueeze(1) * _mixed(U, mix)
    return factor


def _mixed(U: Tensor, mix: Tensor) -> Tensor:
    """U C [d_out, c], in C's dtype."""
    return U[:, : len(mix)].to(mix.dtype) @ mix


def mix_gradients(U: Tensor, delta: Tensor, mix: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dC [c, c] and what the mix adds to dL/ddelta [d_out], from g^T z [d_out, at least c] of all tokens."""
    moment = moment[:, : len(mix)].to(mix.dtype)
    of_mix = U[:, : len(mix)].to(mix.dtype).T @ ((1 + delta).unsqueeze(1) * moment)
    return of_mix, (_mixed(U, mix) * moment).sum(dim=1)


class _Factored(torch.autograd.Function):
    """y plus the update of one adapter through its B, for many tokens: half the products of the general form.

    Backward keeps z [T, r] alone. With M = U * (g^T z): dL/dsigma = (1 + delta)^T M, dL/ddelta = M s; see also
    `mix_gradients`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor,
        mix: Tensor | None,
    ) -> Tensor:  # fmt: skip
        z = F.linear(x, Vt[: sigma.shape[0]])
        ctx.save_for_backward(z, U, S, Vt, sigma, delta, mix)
        return torch.addmm(y, z, lora_factor(U, S, sigma, delta, mix).to(U.dtype).T)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grad_outputs
        z, U, S, Vt, sigma, delta, mix = ctx.saved_tensors
        rank = sigma.shape[0]
        grad_x = grad_sigma = grad_delta = grad_mix = None
        if ctx.needs_input_grad[0]:
            grad_x = g @ lora_factor(U, S, sigma, delta, mix).to(U.dtype) @ Vt[:rank]
        if any(ctx.needs_input_grad[5:]):
            moment = g.T @ z
            of_mix = None if mix is None else mix_gradients(U, delta, mix, moment)
            moment = (U[:, :rank] * moment).to(sigma.dtype)
            grad_sigma = (1 + delta) @ moment
            grad_delta = moment @ (S[:rank] + sigma)
            if of_mix is not None:
                grad_mix, of_delta = of_mix
                grad_delta += of_delta
        return grad_x, g, None, None, None, grad_sigma, grad_delta, grad_mix


def osora_add(
    x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, mix: Tensor | None = None
) -> Tensor:
    """y [..., d_out] plus the update of one adapter, sigma [r], delta [d_out] and mix [c, c], for all of x [..., d_in].

    Computed in the factors' dtype, or in autocast's where it is on; returned in y's.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return osora_add(x, y, U.to(dtype), S, Vt.to(dtype), sigma, delta, mix)
    tokens, base = x.flatten(0, -2).to(U.dtype), y.flatten(0, -2).to(U.dtype)
    added: Tensor = _Factored.apply(tokens, base, U, S, Vt, sigma, delta, mix)  # type: ignore[no-untyped-call]
    return added.view(y.shape).to(y.dtype)


def merged_weight(weight: Tensor, factors: Factors, sigma: Tensor, delta: Tensor, mix: Tensor | None = None) -> Tensor:
    """W0 + diag(o) U (diag(s) + C) V^T - U diag(s0) V^T for sigma [r], delta [d_out] and mix [c, c] of one adapter.

    [d_out, d_in] in weight's dtype: summed in float64 and rounded once.
    """
    return (weight.double() + dense_update(factors, sigma, delta, mix)).to(weight.dtype)


def dense_update(factors: Factors, sigma: Tensor, delta: Tensor, mix: Tensor | None = None) -> Tensor:
    """What an adapter adds to a weight, [d_out, d_in] in float64; sigma [r], delta [d_out], mix [c, c]."""
    exact = None if mix is None else mix.double()
    factor = lora_factor(factors.U.double(), factors.S.double(), sigma.double(), delta.double(), exact)
    return factor @ factors.Vt[: sigma.shape[0]].double()
