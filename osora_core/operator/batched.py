"""The updates of several slots at once, as batched products. Shapes: see the package."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.operator.mixes import Mixes
from osora_core.operator.reference import effective_scale, within_rank
from osora_core.operator.runs import EqualRuns


class _Batched(torch.autograd.Function):
    """What `factored` does for one adapter, for several: one batched product for all runs with equally many rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor,
        ranks: Tensor, slots: Tensor, equal: Sequence[EqualRuns], mixes: Sequence[Mixes], *_: Tensor,
    ) -> Tensor:  # fmt: skip
        z = F.linear(x, Vt)
        own_sigma, own_delta = sigma[slots], delta[slots]
        scale = effective_scale(S, own_sigma, ranks[slots])
        ctx.save_for_backward(z, U, Vt, own_sigma, own_delta, scale, slots, ranks)
        ctx.equal, ctx.rows, ctx.mixes = equal, sigma.shape[0], mixes
        factors = _Batched.factors(U, own_sigma, own_delta, scale, mixes)
        added = torch.empty_like(y)
        for first, last, start, stop in equal:
            ys, zs, into = (t[start:stop].view(last - first, -1, t.shape[-1]) for t in (y, z, added))
            torch.baddbmm(ys, zs, factors[first:last].mT, out=into)
        return added

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        g = grad_outputs[0].contiguous()
        z, U, Vt, sigma, delta, scale, slots, ranks = ctx.saved_tensors
        grad_z, moments = torch.empty_like(z), torch.empty(len(slots), *U.shape, dtype=z.dtype, device=z.device)
        factors = _Batched.factors(U, sigma, delta, scale, ctx.mixes)
        for first, last, start, stop in ctx.equal:
            gs, zs = (t[start:stop].view(last - first, -1, t.shape[-1]) for t in (g, z))
            if ctx.needs_input_grad[0]:
                grad_z[start:stop] = torch.bmm(gs, factors[first:last]).view_as(grad_z[start:stop])
            torch.bmm(gs.mT, zs, out=moments[first:last])
        del factors
        grad_mixes = [_Batched.mix_gradient(moments, U, delta, mix) for mix in ctx.mixes]
        moment = torch.mul(moments, U).to(sigma.dtype)
        grad_sigma = torch.zeros(ctx.rows, sigma.shape[1], dtype=sigma.dtype, device=g.device)
        grad_delta = torch.zeros(ctx.rows, delta.shape[1], dtype=delta.dtype, device=g.device)
        used = within_rank(ranks[slots], sigma.shape[1])
        grad_sigma[slots] = torch.bmm((1 + delta).unsqueeze(1), moment).squeeze(1) * used
        grad_delta[slots] = torch.bmm(moment, scale.unsqueeze(2)).squeeze(2)
        for mix, (_, of_delta) in zip(ctx.mixes, grad_mixes, strict=True):
            grad_delta[slots[mix.runs]] += of_delta
        grad_x = F.linear(grad_z, Vt.T) if ctx.needs_input_grad[0] else None
        of_mixes = (of_C for of_C, _ in grad_mixes)
        return grad_x, g, None, None, None, grad_sigma, grad_delta, None, None, None, None, *of_mixes

    @staticmethod
    def factors(U: Tensor, sigma: Tensor, delta: Tensor, scale: Tensor, mixes: Sequence[Mixes]) -> Tensor:
        """`lora_factor` of each slot, [runs, d_out, R] in U's dtype."""
        factors = torch.empty(len(sigma), *U.shape, dtype=U.dtype, device=U.device)
        torch.mul(torch.addcmul(sigma.unsqueeze(1), delta.unsqueeze(2), scale.unsqueeze(1)), U, out=factors)
        for mix in mixes:
            own, c = mix.runs, mix.size
            vectors = torch.addcmul(sigma[own, None, :c], delta[own].unsqueeze(2), scale[own, None, :c]) * U[:, :c]
            both = vectors + (1 + delta[own]).unsqueeze(2) * _Batched.mixed(U, mix)
            factors[own, :, :c] = both.to(factors.dtype)
        return factors

    @staticmethod
    def mixed(U: Tensor, mix: Mixes) -> Tensor:
        """U C of each run that has one, [k, d_out, c] in C's dtype."""
        return U[:, : mix.size].to(mix.C.dtype) @ mix.C[mix.of_runs]

    @staticmethod
    def mix_gradient(moments: Tensor, U: Tensor, delta: Tensor, mix: Mixes) -> tuple[Tensor, Tensor]:
        """dL/dC [m + 1, c, c] and what the mix adds to dL/ddelta [k, d_out] of its runs, from g^T z
        [runs, d_out, R]."""
        own = moments[mix.runs, :, : mix.size].to(mix.C.dtype)
        grad = torch.zeros_like(mix.C, memory_format=torch.contiguous_format)
        o = 1 + delta[mix.runs].unsqueeze(2)
        grad[mix.of_runs] = U[:, : mix.size].to(grad.dtype).T @ (o * own)
        return grad, (_Batched.mixed(U, mix) * own).sum(dim=2)


def osora_add_batched(
    x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, ranks: Tensor, slots: Tensor,
    equal: Sequence[EqualRuns], mixes: Sequence[Mixes] = (),
) -> Tensor:  # fmt: skip
    """y [B, T, d_out], contiguous, plus the updates of x [B, T, d_in], whose rows are grouped by slot.

    slots [runs]: each run's slot; `equal` covers all runs. The other operands are `osora_update`'s.
    """
    of_mixes = [mix.C for mix in mixes]
    added: Tensor = _Batched.apply(x, y, U, S, Vt, sigma, delta, ranks, slots, equal, mixes, *of_mixes)  # type: ignore[no-untyped-call]
    return added
