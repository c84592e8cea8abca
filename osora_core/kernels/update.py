"""What the kernels of `osora_core.kernels.expand` share: tokens' norms, and their z scaled for the products with U.

Shapes: N tokens, M tokens a program, B columns, T triplets at a time,
"""

import triton
import triton.language as tl


@triton.jit
def scaled(z, sigma, initial, rank, k):
    """sigma * z and (s0 + sigma) * z of M tokens [M, k], zero beyond each token's rank."""
    z = tl.where(k[None, :] < rank[:, None], z, tl.zeros_like(z))
    inner = sigma.to(z.dtype) * z
    return inner, inner + initial.to(z.dtype)[None, :] * z


@triton.jit
def with_mix(inner, outer, mixed, rows, live, k, STRIDE: tl.constexpr, MIX: tl.constexpr):
    """Both with each token's C z [M, k] added, of one linear: `mixed` [N, STRIDE] from its first column on."""
    mask = live[:, None] & (k < MIX)[None, :]
    more = tl.load(mixed + rows[:, None] * STRIDE + k[None, :], mask=mask, other=0.0)
    return inner + more, outer + more


@triton.jit
def further(
    z, mixed, vectors, S, U, rows, rank, live, inside, R, first, T: tl.constexpr, STRIDE: tl.constexpr,
    MIX: tl.constexpr,
):  # fmt: skip
    """U times both scaled z of M tokens [M, B], of triplets [first, first + T) of one linear, after its first T: those
    its caller loads early."""
    k = first + tl.arange(0, T)
    used = k < R
    u = tl.load(U + k[:, None], mask=used[:, None] & inside[None, :], other=0.0)
    initial = tl.load(S + k, mask=used, other=0.0, eviction_policy="evict_last")
    sigma = tl.load(vectors + k[None, :], mask=used[None, :], other=0.0, eviction_policy="evict_last")
    inner, outer = scaled(
        tl.load(z + k[None, :], mask=live[:, None] & used[None, :], other=0.0), sigma, initial, rank, k
    )
    if MIX > T:
        inner, outer = with_mix(inner, outer, mixed, rows, live, k, STRIDE, MIX)
    return tl.dot(inner, u, input_precision="ieee"), tl.dot(outer, u, input_precision="ieee")


@triton.jit
def inverse_rms(squares, rows, live, eps, PARTS: tl.constexpr, PARTS2: tl.constexpr, WIDTH: tl.constexpr):
    """1 / rms of M tokens [M]."""
    part = tl.arange(0, PARTS2)
    mask = live[:, None] & (part < PARTS)[None, :]
    total = tl.sum(tl.load(squares + rows[:, None] * PARTS + part[None, :], mask=mask, other=0.0), axis=1)
    return tl.rsqrt(total / WIDTH + eps)
