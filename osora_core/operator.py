"""The OSoRA operator in delta form: its definition, and the executions that are held to it.

Shapes: B rows, T tokens a row, d_in and d_out the weight's sizes, R the basis rank, n bank rows (slots).

With z = V^T x, sigma = s - s0 and delta = o - 1 (arXiv 2505.14350, rearranged so that zero is the base model):

    y = W0 x + U (sigma * z) + delta * U ((s0 + sigma) * z)

The second and third term are the *update*; they need W0 neither dense nor in floating point, so the base layer may be
anything that maps [..., d_in] to [..., d_out].
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from osora_core.basis import Factors


def effective_scale(S: Tensor, sigma: Tensor, ranks: Tensor | None) -> Tensor:
    """s0 + sigma, [n, R] float32, zero beyond each slot's own rank (`ranks` [n]; None means all R are used)."""
    scale = S + sigma
    if ranks is None:
        return scale
    used = torch.arange(S.shape[0], device=S.device) < ranks.unsqueeze(1)
    return scale * used


def osora_update_reference(
    x: Tensor,
    U: Tensor,
    S: Tensor,
    Vt: Tensor,
    sigma: Tensor,
    delta: Tensor,
    slots: Tensor,
    ranks: Tensor | None = None,
) -> Tensor:
    """What the adapters in `slots` add to W0 x, in plain differentiable torch: the definition the others are held to.

    x [B, T, d_in] or [B, d_in]; U [d_out, R]; S [R]; Vt [R, d_in]; sigma [n, R]; delta [n, d_out]; slots [B] (a row
    each) or [B, T] (a token each); ranks [n], the leading triplets each slot uses. Returns [..., d_out] in x's dtype.
    """
    sigma_rows, scale_rows, delta_rows = (
        _per_token(t, slots, x) for t in (sigma, effective_scale(S, sigma, ranks), delta)
    )
    z = F.linear(x, Vt)
    inner = F.linear((sigma_rows * z).to(x.dtype), U)
    outer = F.linear((scale_rows * z).to(x.dtype), U)
    return (inner + delta_rows * outer).to(x.dtype)


def _per_token(table: Tensor, slots: Tensor, x: Tensor) -> Tensor:
    """Rows of `table` [n, k] for each row or token of x, shaped to broadcast against [..., k]."""
    rows = table[slots]
    return rows.unsqueeze(1) if x.dim() == 3 and slots.dim() == 1 else rows


class _Update(torch.autograd.Function):
    """The update with a hand-written backward that keeps z (R values a token) and not x or U(s*z) (d values a token).

    With g = dL/dy, a1 = U^T g and a2 = U^T (delta * g):
        dL/dx = V (sigma * a1 + s * a2);  dL/dsigma = sum z * (a1 + a2);  dL/ddelta = sum g * U (s * z),
    the sums running over the tokens of a slot.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, slots: Tensor,
        ranks: Tensor | None,
    ) -> Tensor:  # fmt: skip
        scale = effective_scale(S, sigma, ranks)
        z = F.linear(x, Vt)
        ctx.save_for_backward(z, U, Vt, sigma, delta, scale, slots, ranks)
        inner = F.linear((_per_token(sigma, slots, x) * z).to(x.dtype), U)
        outer = F.linear((_per_token(scale, slots, x) * z).to(x.dtype), U)
        return (inner + _per_token(delta, slots, x) * outer).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grad_outputs
        z, U, Vt, sigma, delta, scale, slots, ranks = ctx.saved_tensors
        dtype = z.dtype
        a1 = F.linear(g, U.T)
        a2 = F.linear((_per_token(delta, slots, g) * g).to(dtype), U.T)
        grad_x = grad_sigma = grad_delta = None
        if ctx.needs_input_grad[0]:
            a = _per_token(sigma, slots, g) * a1 + _per_token(scale, slots, g) * a2
            grad_x = F.linear(a.to(dtype), Vt.T)
        if ctx.needs_input_grad[4]:
            grad_sigma = _sum_by_slot(z.to(sigma.dtype) * (a1 + a2), slots, sigma)
            if ranks is not None:
                used = torch.arange(sigma.shape[1], device=sigma.device) < ranks.unsqueeze(1)
                grad_sigma = grad_sigma * used
        if ctx.needs_input_grad[5]:
            outer = F.linear((_per_token(scale, slots, g) * z).to(dtype), U)
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
    ranks: Tensor | None = None,
) -> Tensor:
    """The update of `osora_update_reference`, with the memory-saving backward where gradients are wanted."""
    if torch.is_grad_enabled() and (x.requires_grad or sigma.requires_grad or delta.requires_grad):
        update: Tensor = _Update.apply(x, U, S, Vt, sigma, delta, slots, ranks)  # type: ignore[no-untyped-call]
        return update
    return osora_update_reference(x, U, S, Vt, sigma, delta, slots, ranks)


def osora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor,
    slots: Tensor, ranks: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """y = W0 x + b + update: the whole operator for a dense weight [d_out, d_in]. Shapes as in the update."""
    return F.linear(x, weight, bias) + osora_update(x, U, S, Vt, sigma, delta, slots, ranks)


_KEPT_VALUES = 2**20
"""Values of dense weights that a layer keeps for its backward pass: 4 MiB, which a small base can spare."""


class _Merged(torch.autograd.Function):
    """The whole operator through one dense weight a slot: fewer operations where a slot has many tokens.

    With C = sigma + delta * s (an outer sum, [d_out, R]) a slot's weight is W0 + (U * C) V^T. Backward needs z alone:
    with M = g^T z, dL/dsigma = (1 + delta)^T (U * M) and dL/ddelta = (U * M) s. Only small dense weights are kept for
    it as well, large ones are made once more. In float32 only: a bfloat16 W0 would swallow small updates.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor,
        delta: Tensor, ranks: Tensor, spans: "Spans",
    ) -> Tensor:  # fmt: skip
        scale = effective_scale(S, sigma, ranks)
        z = F.linear(x, Vt)
        ctx.save_for_backward(z, weight, U, Vt, sigma, delta, scale, ranks)
        ctx.spans = spans
        rows, kept = [], []
        keeps = len(spans) * weight.numel() <= _KEPT_VALUES
        for slot, start, stop in spans:
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
        for index, (slot, start, stop) in enumerate(ctx.spans):
            gs, zs = g[start:stop].flatten(0, -2), z[start:stop].flatten(0, -2)
            if ctx.needs_input_grad[0]:
                weighing = (weight, U, Vt, sigma[slot], delta[slot], scale[slot])
                dense = kept[index] if kept else _Merged.weight(*weighing)
                grad_rows.append((gs @ dense).view(*g[start:stop].shape[:-1], -1))
            moment = U * (gs.T @ zs)
            grad_sigma[slot] += (1 + delta[slot]) @ moment
            grad_delta[slot] += moment @ scale[slot]
        grad_sigma *= torch.arange(sigma.shape[1], device=sigma.device) < ranks.unsqueeze(1)
        grad_x = _join(grad_rows) if grad_rows else None
        return grad_x, None, None, None, None, None, grad_sigma, grad_delta, None, None

    @staticmethod
    def weight(weight: Tensor, U: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, scale: Tensor) -> Tensor:
        return torch.addmm(weight, U * (sigma + torch.outer(delta, scale)), Vt)


def _join(rows: list[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def osora_linear_merged(
    x: Tensor, weight: Tensor, bias: Tensor | None, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor,
    ranks: Tensor, spans: "Spans",
) -> Tensor:  # fmt: skip
    """`osora_linear` for float32 x [B, T, d_in] whose rows are grouped by slot; `spans` covers all of them."""
    y: Tensor = _Merged.apply(x, weight, bias, U, S, Vt, sigma, delta, ranks, spans)  # type: ignore[no-untyped-call]
    return y


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


class _Batched(torch.autograd.Function):
    """`_Factored` for several slots at once, a batched product for all slots of a block: for many tokens a slot.

    In a block every slot has equally many rows.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor,
        ranks: Tensor, slots: Tensor, blocks: "Blocks",
    ) -> Tensor:  # fmt: skip
        z = F.linear(x, Vt)
        own_sigma, own_delta = sigma[slots], delta[slots]
        scale = effective_scale(S, own_sigma, ranks[slots])
        ctx.save_for_backward(z, U, Vt, own_sigma, own_delta, scale, slots, ranks)
        ctx.blocks, ctx.rows = blocks, sigma.shape[0]
        factors = _Batched.factors(U, own_sigma, own_delta, scale)
        added = torch.empty_like(y)
        for first, last, start, stop in blocks:
            ys, zs, into = (t[start:stop].view(last - first, -1, t.shape[-1]) for t in (y, z, added))
            torch.baddbmm(ys, zs, factors[first:last].mT, out=into)
        return added

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        g = grad_outputs[0].contiguous()
        z, U, Vt, sigma, delta, scale, slots, ranks = ctx.saved_tensors
        grad_z, moments = torch.empty_like(z), torch.empty(len(slots), *U.shape, dtype=z.dtype, device=z.device)
        factors = _Batched.factors(U, sigma, delta, scale)
        for first, last, start, stop in ctx.blocks:
            gs, zs = (t[start:stop].view(last - first, -1, t.shape[-1]) for t in (g, z))
            if ctx.needs_input_grad[0]:
                grad_z[start:stop] = torch.bmm(gs, factors[first:last]).view_as(grad_z[start:stop])
            torch.bmm(gs.mT, zs, out=moments[first:last])
        del factors
        moment = torch.mul(moments, U).to(sigma.dtype)
        grad_sigma = torch.zeros(ctx.rows, sigma.shape[1], dtype=sigma.dtype, device=g.device)
        grad_delta = torch.zeros(ctx.rows, delta.shape[1], dtype=delta.dtype, device=g.device)
        used = torch.arange(sigma.shape[1], device=g.device) < ranks[slots].unsqueeze(1)
        grad_sigma[slots] = torch.bmm((1 + delta).unsqueeze(1), moment).squeeze(1) * used
        grad_delta[slots] = torch.bmm(moment, scale.unsqueeze(2)).squeeze(2)
        grad_x = F.linear(grad_z, Vt.T) if ctx.needs_input_grad[0] else None
        return grad_x, g, None, None, None, grad_sigma, grad_delta, None, None, None

    @staticmethod
    def factors(U: Tensor, sigma: Tensor, delta: Tensor, scale: Tensor) -> Tensor:
        """`lora_factor` of each slot, [slots, d_out, R] in U's dtype."""
        factors = torch.empty(len(sigma), *U.shape, dtype=U.dtype, device=U.device)
        return torch.mul(torch.addcmul(sigma.unsqueeze(1), delta.unsqueeze(2), scale.unsqueeze(1)), U, out=factors)


def osora_add_batched(
    x: Tensor, y: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, ranks: Tensor, slots: Tensor,
    blocks: "Blocks",
) -> Tensor:  # fmt: skip
    """y [B, T, d_out], contiguous, plus the updates of rows that are grouped by slot. `slots` [spans]."""
    added: Tensor = _Batched.apply(x, y, U, S, Vt, sigma, delta, ranks, slots, blocks)  # type: ignore[no-untyped-call]
    return added


def merged_weight(weight: Tensor, factors: "Factors", sigma: Tensor, delta: Tensor, rank: int) -> Tensor:
    """W0 + diag(o) U diag(s) V^T - U diag(s0) V^T, [d_out, d_in] in weight's dtype, computed in float64.

    sigma [r'] and delta [d_out] of one adapter; `rank` is how many triplets it uses.
    """
    return (weight.double() + dense_update(factors, sigma[:rank], delta)).to(weight.dtype)


def dense_update(factors: "Factors", sigma: Tensor, delta: Tensor) -> Tensor:
    """What an adapter adds to a weight, [d_out, d_in] in float64; sigma [r], delta [d_out]."""
    factor = lora_factor(factors.U.double(), factors.S.double(), sigma.double(), delta.double())
    return factor @ factors.Vt[: sigma.shape[0]].double()


Spans = tuple[tuple[int, int, int], ...]
"""(slot, first row, row after the last) of each run of batch rows that share a slot."""


def runs(slots: Sequence[int]) -> Spans:
    """The spans of a batch whose rows have these slots; equal slots must be neighbours."""
    spans: list[tuple[int, int, int]] = []
    for row, slot in enumerate(slots):
        if spans and spans[-1][0] == slot:
            spans[-1] = (slot, spans[-1][1], row + 1)
        else:
            spans.append((slot, row, row + 1))
    return tuple(spans)


Blocks = tuple[tuple[int, int, int, int], ...]
"""(first span, span after the last, first row, row after the last) of each run of spans with equally many rows."""


def blocks_of(spans: Spans) -> Blocks:
    """The blocks of a batch with these spans; few where spans with equally many rows are neighbours."""
    blocks: list[tuple[int, int, int, int]] = []
    for index, (_, start, stop) in enumerate(spans):
        if blocks and (stop - start) * (blocks[-1][1] - blocks[-1][0]) == blocks[-1][3] - blocks[-1][2]:
            blocks[-1] = (blocks[-1][0], index + 1, blocks[-1][2], stop)
        else:
            blocks.append((index, index + 1, start, stop))
    return tuple(blocks)
