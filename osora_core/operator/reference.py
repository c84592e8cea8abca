"""The definition of the update, in plain differentiable torch. Shapes: see the package."""

from torch import Tensor, arange
from torch.nn import functional as F


def osora_update_reference(
    x: Tensor, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, slots: Tensor, ranks: Tensor,
    mix: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """What the adapters in `slots` add to W0 x: the definition that every other execution is held to.

    x [B, T, d_in] or [B, d_in]; U [d_out, R]; S [R]; Vt [R, d_in]; sigma [n, R]; delta [n, d_out]; slots [B] (one a
    row) or [B, T] (one a token); ranks [n], how many leading triplets each slot uses; mix: the C of each slot
    [n, c, c], zero for one without, None where there are none; c is at most the least rank of those with one. Returns
    [..., d_out] in x's dtype.
    """
    sigma_rows, scale_rows, delta_rows = (
        per_token(t, slots, x) for t in (sigma, effective_scale(S, sigma, ranks), delta)
    )
    z = F.linear(x, Vt)
    inner_z, outer_z = sigma_rows * z, scale_rows * z
    if mix is not None:
        mixed = (per_token(mix, slots, x) @ z[..., : mix.shape[1], None].to(mix.dtype)).squeeze(-1)
        mixed = F.pad(mixed, (0, z.shape[-1] - mix.shape[1]))
        inner_z, outer_z = inner_z + mixed, outer_z + mixed
    inner = F.linear(inner_z.to(x.dtype), U)
    outer = F.linear(outer_z.to(x.dtype), U)
    return (inner + delta_rows * outer).to(x.dtype)


def effective_scale(S: Tensor, sigma: Tensor, ranks: Tensor) -> Tensor:
    """s0 + sigma [n, R], zero beyond each slot's own rank, `ranks` [n]."""
    return (S + sigma) * within_rank(ranks, S.shape[0])


def within_rank(ranks: Tensor, R: int) -> Tensor:
    """Which of R triplets each slot uses, [n, R]: the leading `ranks` [n]."""
    return arange(R, device=ranks.device) < ranks.unsqueeze(1)


def per_token(table: Tensor, slots: Tensor, x: Tensor) -> Tensor:
    """The entries of `table` [n, ...] that the rows or tokens of x use, shaped to broadcast against [..., k] of it."""
    rows = table[slots]
    return rows.unsqueeze(1) if x.dim() == 3 and slots.dim() == 1 else rows
