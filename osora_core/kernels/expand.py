"""What follows a product with a stacked weight: the update of every token's own adapter, and the next elementwise work.

A group of linears that read the same input is one product y = W h, W [D + n K, d_in]: the n weights (D rows in all),
below them the V^T of each, padded to K rows. Its last n K columns are the z of each linear. The kernels here add

    U (sigma * z + C z) + delta * U ((s0 + sigma) * z + C z)

with the sigma and delta of each token's slot, and go on with what the decoder does next, so that adapters cost no
launches of their own. C z is there where some token of the pass has a mix (`osora_core.kernels.mix`). Slot 0 adds
zero, exactly. RMS norm is divided among its neighbours: whoever writes the residual stream x also writes h = x * weight
and sums of squares of x by block of columns; whoever reads y = W h scales it by 1 / rms(x), which commutes with the
product.

Shapes: N tokens, M tokens a program, D columns of a group, H query and G key/value heads of SIZE, P values a slot; T
triplets at a time, which are all of them where shared memory has room.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_wait

from osora_core.kernels.group import Group
from osora_core.kernels.tiles import early, gate_tile, heads_tile, residual_tile
from osora_core.kernels.update import further, inverse_rms, scaled, with_mix


@dataclass(frozen=True)
class Tokens:
    """What the kernels need to know of N tokens, int32 [N] each: their slots, positions and lines of the pool.

    A token at position -1 is padding: it is computed, and written to no cache.
    """

    slots: Tensor
    positions: Tensor
    lines: Tensor

    @property
    def count(self) -> int:
        return self.slots.shape[0]


@dataclass(frozen=True)
class Stream:
    """The residual stream: x [N, d], h = x * norm weight [N, d], and sums of x^2 by block of columns [N, parts]."""

    x: Tensor
    h: Tensor
    squares: Tensor


@dataclass(frozen=True)
class Vectors:
    """A bank's values [n, P] and ranks [n]."""

    values: Tensor
    ranks: Tensor


@triton.jit
def _carry(x, h, squares, weight, value, rows, n, mask, inside, block, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """Write a block of the residual stream, with what the next norm needs."""
    value = value.to(x.dtype.element_ty)
    at = rows[:, None] * WIDTH + n[None, :]
    tl.store(x + at, value, mask=mask)
    value = value.to(tl.float32)
    scaled = value * tl.load(weight + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    tl.store(h + at, scaled.to(h.dtype.element_ty), mask=mask)
    tl.store(squares + rows * PARTS + block, tl.sum(value * value, axis=1), mask=tl.max(mask.to(tl.int32), 1) > 0)


@triton.jit(do_not_specialize=["tokens"])
def _embed_kernel(
    ids, table, x, h, squares, weight, tokens, WIDTH: tl.constexpr, PARTS: tl.constexpr, M: tl.constexpr,
    B: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    rows = tl.program_id(1) * M + tl.arange(0, M)
    n = block * B + tl.arange(0, B)
    live, inside = rows < tokens, n < WIDTH
    mask = live[:, None] & inside[None, :]
    line = tl.load(ids + rows, mask=live, other=0).to(tl.int64)
    value = tl.load(table + line[:, None] * WIDTH + n[None, :], mask=mask, other=0.0)
    value = tl.where(mask, value, 0.0)
    _carry(x, h, squares, weight, value, rows, n, mask, inside, block, WIDTH, PARTS)


@triton.jit(do_not_specialize=["tokens"])
def _residual_kernel(
    y, slots, values, stride, ranks, U, S, mixed, x, h, squares, weight, tokens, width, R, K: tl.constexpr,
    T: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, ADAPTED: tl.constexpr, MIX: tl.constexpr,
    M: tl.constexpr, B: tl.constexpr, WAIT: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    rows = tl.program_id(1) * M + tl.arange(0, M)
    n = block * B + tl.arange(0, B)
    live, inside = rows < tokens, n < WIDTH
    mask = live[:, None] & inside[None, :]
    k = tl.arange(0, T)
    used = k < R
    # Loads come first, those that depend on others last: their latencies then overlap. What the next layer reads again
    # is to stay in the cache while a product's weights pass through it.
    if ADAPTED:
        slot = tl.load(slots + rows, mask=live, other=0, eviction_policy="evict_last").to(tl.int64)
        u = tl.load(U + n[None, :] * K + k[:, None], mask=used[:, None] & inside[None, :], other=0.0)
        initial = tl.load(S + k, mask=used, other=0.0, eviction_policy="evict_last")
        vectors = (values + slot * stride)[:, None]
        sigma = tl.load(vectors + k[None, :], mask=used[None, :], other=0.0, eviction_policy="evict_last")
        delta = tl.load(vectors + R + n[None, :], mask=inside[None, :], other=0.0)
        rank = tl.load(ranks + slot, eviction_policy="evict_last")
    if WAIT:
        gdc_wait()
    at = rows[:, None] * width
    value = tl.load(y + at + n[None, :], mask=mask, other=0.0).to(tl.float32)
    value += tl.load(x + rows[:, None] * WIDTH + n[None, :], mask=mask, other=0.0).to(tl.float32)
    if ADAPTED:
        z = tl.load(y + at + WIDTH + k[None, :], mask=live[:, None] & used[None, :], other=0.0)
        inner, outer = scaled(z, sigma, initial, rank, k)
        if MIX:
            inner, outer = with_mix(inner, outer, mixed, rows, live, k, MIX, MIX)
        value += tl.dot(inner, u, input_precision="ieee")
        value += tl.dot(outer, u, input_precision="ieee") * delta.to(tl.float32)
        for first in tl.range(T, K, T, num_stages=1):
            more, outer_more = further(
                y + at + WIDTH, mixed, vectors, S, U + n[None, :] * K, rows, rank, live, inside, R, first, T, MIX, MIX
            )
            value += more
            value += outer_more * delta.to(tl.float32)
    _carry(x, h, squares, weight, value, rows, n, mask, inside, block, WIDTH, PARTS)


@triton.jit(do_not_specialize=["tokens"])
def _gate_kernel(
    y, slots, values, stride, ranks, U, S, mixed, squares, out, tokens, eps, width, up_column, R, K: tl.constexpr,
    T: tl.constexpr, WIDTH: tl.constexpr, D_IN: tl.constexpr, PARTS: tl.constexpr, PARTS2: tl.constexpr,
    ADAPTED: tl.constexpr, MIX: tl.constexpr, M: tl.constexpr, B: tl.constexpr, STEPS: tl.constexpr,
    STAGES: tl.constexpr, WAIT: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * M + tl.arange(0, M)
    live = rows < tokens
    k = tl.arange(0, T)
    used = k < R
    at = rows[:, None] * width
    if ADAPTED:
        slot = tl.load(slots + rows, mask=live, other=0, eviction_policy="evict_last").to(tl.int64)
        gate_initial = tl.load(S + k, mask=used, other=0.0, eviction_policy="evict_last")
        up_initial = tl.load(S + K + k, mask=used, other=0.0, eviction_policy="evict_last")
        vectors = (values + slot * stride)[:, None]
        rank = tl.load(ranks + slot, eviction_policy="evict_last")
        place = vectors + k[None, :]
        gate_sigma = tl.load(place, mask=used[None, :], other=0.0, eviction_policy="evict_last")
        up_sigma = tl.load(place + up_column, mask=used[None, :], other=0.0, eviction_policy="evict_last")
    if WAIT:
        gdc_wait()
    if ADAPTED:
        z = y + at + 2 * WIDTH + k[None, :]
        gate_z = tl.load(z, mask=live[:, None] & used[None, :], other=0.0)
        up_z = tl.load(z + K, mask=live[:, None] & used[None, :], other=0.0)
        gate_inner, gate_outer = scaled(gate_z, gate_sigma, gate_initial, rank, k)
        up_inner, up_outer = scaled(up_z, up_sigma, up_initial, rank, k)
        if MIX:
            gate_inner, gate_outer = with_mix(gate_inner, gate_outer, mixed, rows, live, k, 2 * MIX, MIX)
            up_inner, up_outer = with_mix(up_inner, up_outer, mixed + MIX, rows, live, k, 2 * MIX, MIX)
    inverse = inverse_rms(squares, rows, live, eps, PARTS, PARTS2, D_IN)[:, None]
    for step in tl.range(0, STEPS, num_stages=STAGES):
        n = (tl.program_id(0) * STEPS + step) * B + tl.arange(0, B)
        inside = n < WIDTH
        mask = live[:, None] & inside[None, :]
        gate = tl.load(y + at + n[None, :], mask=mask, other=0.0).to(tl.float32)
        up = tl.load(y + at + WIDTH + n[None, :], mask=mask, other=0.0).to(tl.float32)
        if ADAPTED:
            tile = U + n[None, :] * K + k[:, None]
            read = used[:, None] & inside[None, :]
            gate_u = tl.load(tile, mask=read, other=0.0)
            up_u = tl.load(tile + WIDTH * K, mask=read, other=0.0)
            delta = vectors + R + n[None, :]
            gate_delta = tl.load(delta, mask=inside[None, :], other=0.0).to(tl.float32)
            up_delta = tl.load(delta + up_column, mask=inside[None, :], other=0.0).to(tl.float32)
            gate += tl.dot(gate_inner, gate_u, input_precision="ieee")
            gate += tl.dot(gate_outer, gate_u, input_precision="ieee") * gate_delta
            up += tl.dot(up_inner, up_u, input_precision="ieee")
            up += tl.dot(up_outer, up_u, input_precision="ieee") * up_delta
            for first in tl.range(T, K, T, num_stages=1):
                its_z, its_u = y + at + 2 * WIDTH, U + n[None, :] * K
                more, outer_more = further(
                    its_z, mixed, vectors, S, its_u, rows, rank, live, inside, R, first, T, 2 * MIX, MIX
                )
                gate += more
                gate += outer_more * gate_delta
                more, outer_more = further(
                    its_z + K, mixed + MIX, vectors + up_column, S + K, its_u + WIDTH * K, rows, rank, live, inside, R,
                    first, T, 2 * MIX, MIX,
                )  # fmt: skip
                up += more
                up += outer_more * up_delta
        gate, up = gate * inverse, up * inverse
        result = gate / (1.0 + tl.exp(-gate)) * up
        tl.store(out + rows[:, None] * WIDTH + n[None, :], result.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["tokens"])
def _heads_kernel(
    y, slots, values, stride, ranks, U, S, mixed, squares, bias, cos, sin, q_norm, k_norm, positions, lines, query,
    key_pool, value_pool, line_stride, head_stride, tokens, eps, norm_eps, width, key_column, value_column, R_Q, R_K,
    R_V, K: tl.constexpr, T: tl.constexpr, H: tl.constexpr, G: tl.constexpr, SIZE: tl.constexpr, D_IN: tl.constexpr,
    PARTS: tl.constexpr, PARTS2: tl.constexpr, BIAS: tl.constexpr, NORM: tl.constexpr, ADAPTED: tl.constexpr,
    MIX: tl.constexpr, M: tl.constexpr, WAIT: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    rows = tl.program_id(1) * M + tl.arange(0, M)
    live = rows < tokens
    HALF: tl.constexpr = SIZE // 2
    half = tl.arange(0, HALF)
    column = head * SIZE
    # Which linear this head belongs to (0, 1, 2 for q, k, v), its first column in the group, its own rank and vectors.
    part = (head >= H).to(tl.int32) + (head >= H + G).to(tl.int32)
    if ADAPTED:
        slot = tl.load(slots + rows, mask=live, other=0, eviction_policy="evict_last").to(tl.int64)
        k = tl.arange(0, T)
        own = tl.where(part == 0, R_Q, tl.where(part == 1, R_K, R_V))
        used = k < own
        n = column + tl.arange(0, SIZE)
        u = tl.load(U + n[None, :] * K + k[:, None], mask=used[:, None], other=0.0)
        initial = tl.load(S + part * K + k, mask=used, other=0.0, eviction_policy="evict_last")
        vectors = values + tl.where(part == 0, 0, tl.where(part == 1, key_column, value_column))
        vectors = (vectors + slot * stride)[:, None]
        sigma = tl.load(vectors + k[None, :], mask=used[None, :], other=0.0, eviction_policy="evict_last")
        # Behind sigma, and from the linear's own first column on.
        skip = tl.where(part == 0, R_Q, tl.where(part == 1, R_K - H * SIZE, R_V - (H + G) * SIZE))
        delta = tl.load(vectors + skip + n[None, :])
        rank = tl.load(ranks + slot, eviction_policy="evict_last")
    position = tl.load(positions + rows, mask=live, other=-1)
    line = tl.load(lines + rows, mask=live, other=0).to(tl.int64)
    written = live & (position >= 0)
    if WAIT:
        gdc_wait()
    at = y + rows[:, None] * width + column + half[None, :]
    left = tl.load(at, mask=live[:, None], other=0.0).to(tl.float32)
    right = tl.load(at + HALF, mask=live[:, None], other=0.0).to(tl.float32)
    angle = position[:, None] * HALF + half[None, :]
    c = tl.load(cos + angle, mask=written[:, None], other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=written[:, None], other=0.0).to(tl.float32)
    if ADAPTED:
        its_z = y + rows[:, None] * width + (H + 2 * G) * SIZE + part * K
        z = tl.load(its_z + k[None, :], mask=live[:, None] & used[None, :], other=0.0)
        inner, outer = scaled(z, sigma, initial, rank, k)
        if MIX:
            inner, outer = with_mix(inner, outer, mixed + part * MIX, rows, live, k, 3 * MIX, MIX)
        update = tl.dot(inner, u, input_precision="ieee")
        update += tl.dot(outer, u, input_precision="ieee") * delta.to(tl.float32)
        for first in tl.range(T, K, T, num_stages=1):
            more, outer_more = further(
                its_z, mixed + part * MIX, vectors, S + part * K, U + n[None, :] * K, rows, rank, live, n >= 0, own,
                first, T, 3 * MIX, MIX,
            )  # fmt: skip
            update += more
            update += outer_more * delta.to(tl.float32)
        more_left, more_right = tl.split(tl.permute(tl.reshape(update, (M, 2, HALF)), (0, 2, 1)))
        left += more_left
        right += more_right
    inverse = inverse_rms(squares, rows, live, eps, PARTS, PARTS2, D_IN)[:, None]
    left, right = left * inverse, right * inverse
    if BIAS:
        left += tl.load(bias + column + half).to(tl.float32)[None, :]
        right += tl.load(bias + column + HALF + half).to(tl.float32)[None, :]
    if part == 2:
        place = value_pool + line * line_stride + (head - H - G) * head_stride + position * SIZE
        place = place[:, None] + half[None, :]
        tl.store(place, left.to(value_pool.dtype.element_ty), mask=written[:, None])
        tl.store(place + HALF, right.to(value_pool.dtype.element_ty), mask=written[:, None])
    else:
        if NORM:
            total = tl.sum(left * left, axis=1) + tl.sum(right * right, axis=1)
            inverse = tl.rsqrt(total / SIZE + norm_eps)[:, None]
            if part == 0:
                left *= inverse * tl.load(q_norm + half).to(tl.float32)[None, :]
                right *= inverse * tl.load(q_norm + HALF + half).to(tl.float32)[None, :]
            else:
                left *= inverse * tl.load(k_norm + half).to(tl.float32)[None, :]
                right *= inverse * tl.load(k_norm + HALF + half).to(tl.float32)[None, :]
        left, right = left * c - right * s, right * c + left * s
        if part == 0:
            place = query + (rows * H + head)[:, None] * SIZE + half[None, :]
            tl.store(place, left.to(query.dtype.element_ty), mask=live[:, None])
            tl.store(place + HALF, right.to(query.dtype.element_ty), mask=live[:, None])
        else:
            place = key_pool + line * line_stride + (head - H) * head_stride + position * SIZE
            place = place[:, None] + half[None, :]
            tl.store(place, left.to(key_pool.dtype.element_ty), mask=written[:, None])
            tl.store(place + HALF, right.to(key_pool.dtype.element_ty), mask=written[:, None])


def _bank(vectors: Vectors, group: Group) -> tuple[Tensor, int, Tensor]:
    """A bank as the kernels address it: from the group's first column on."""
    return vectors.values[:, group.columns[0] :], vectors.values.stride(0), vectors.ranks


def _mix_size(mixed: Tensor | None, group: Group) -> int:
    """The columns that each linear of the group has in `mixed`, 0 without."""
    return 0 if mixed is None else mixed.shape[1] // len(group.ranks)


def embed(ids: Tensor, table: Tensor, weight: Tensor, K: int) -> Stream:
    """The residual stream of tokens ids [N], int32, through an embedding table [V, d] and the first norm's weight.

    K: that of the groups whose outputs will be added.
    """
    count, width = ids.shape[0], table.shape[1]
    tile = residual_tile(count, K, table.device)
    parts = triton.cdiv(width, tile.columns)
    x, h = (torch.empty(count, width, dtype=table.dtype, device=table.device) for _ in range(2))
    squares = torch.empty(count, parts, dtype=torch.float32, device=table.device)
    _embed_kernel[(parts, triton.cdiv(count, tile.rows))](
        ids, table, x, h, squares, weight, count, WIDTH=width, PARTS=parts, M=tile.rows, B=tile.columns,
        num_warps=tile.warps,
    )  # fmt: skip
    return Stream(x, h, squares)


def residual(
    y: Tensor, group: Group, tokens: Tokens, vectors: Vectors | None, stream: Stream, weight: Tensor,
    mixed: Tensor | None = None,
) -> None:  # fmt: skip
    """Add y and its update to the stream, in place; `weight` is that of the next norm. Without vectors: the base.
    mixed [N, n c]: what `osora_core.kernels.mix` made of y."""
    count, width = stream.x.shape
    parts = stream.squares.shape[1]
    tile = residual_tile(count, group.U.shape[1], y.device)
    # The stream's parts are as wide as whoever began it made them.
    block = triton.next_power_of_2(triton.cdiv(width, parts))
    values, stride, ranks = _bank(vectors, group) if vectors else (y, 0, y)
    _residual_kernel[(parts, triton.cdiv(count, tile.rows))](
        y, tokens.slots, values, stride, ranks, group.U, group.S, y if mixed is None else mixed, stream.x, stream.h,
        stream.squares, weight, count, y.stride(0), group.ranks[0], K=group.U.shape[1], T=tile.triplets, WIDTH=width,
        PARTS=parts, ADAPTED=vectors is not None, MIX=_mix_size(mixed, group), M=tile.rows, B=block,
        WAIT=early(y.device), num_warps=tile.warps, launch_pdl=early(y.device),
    )  # fmt: skip


def gate(
    y: Tensor, group: Group, tokens: Tokens, vectors: Vectors | None, stream: Stream, eps: float,
    mixed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """silu(gate) * up [N, D / 2] of y = W h for a group of these two, the norm's scale included."""
    count, width = tokens.count, group.U.shape[0] // 2
    parts = stream.squares.shape[1]
    out = torch.empty(count, width, dtype=y.dtype, device=y.device)
    tile = gate_tile(count, group.U.shape[1], y.device)
    values, stride, ranks = _bank(vectors, group) if vectors else (y, 0, y)
    _gate_kernel[(triton.cdiv(width, tile.columns * tile.steps), triton.cdiv(count, tile.rows))](
        y, tokens.slots, values, stride, ranks, group.U, group.S, y if mixed is None else mixed, stream.squares, out,
        count, eps, y.stride(0), group.columns[1] - group.columns[0], group.ranks[0], K=group.U.shape[1],
        T=tile.triplets, WIDTH=width, D_IN=stream.x.shape[1], PARTS=parts, PARTS2=triton.next_power_of_2(parts),
        ADAPTED=vectors is not None, MIX=_mix_size(mixed, group), M=tile.rows, B=tile.columns, STEPS=tile.steps,
        STAGES=tile.stages, WAIT=early(y.device), num_warps=tile.warps, launch_pdl=early(y.device),
    )  # fmt: skip
    return out


@dataclass(frozen=True)
class Heads:
    """What turns projections into heads: their counts and size, cos and sin [positions, SIZE / 2] of the rotary
    embedding, and the norms on q and k (weights [SIZE] and epsilon) where a family has them."""

    queries: int
    pairs: int
    size: int
    cos: Tensor
    sin: Tensor
    norms: tuple[Tensor, Tensor, float] | None


def heads(
    y: Tensor, group: Group, tokens: Tokens, vectors: Vectors | None, stream: Stream, eps: float, layout: Heads,
    keys: Tensor, values: Tensor, mixed: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The queries [N, H, SIZE] of y = W h for a group of q, k, v; keys and values go into the pools [C, G, L, SIZE]."""
    count, parts = tokens.count, stream.squares.shape[1]
    query = torch.empty(count, layout.queries, layout.size, dtype=y.dtype, device=y.device)
    tile = heads_tile(count, layout.size, group.U.shape[1], y.device)
    bank, stride, ranks = _bank(vectors, group) if vectors else (y, 0, y)
    q_norm, k_norm, norm_eps = layout.norms or (y, y, 0.0)
    first = group.columns[0]
    _heads_kernel[(layout.queries + 2 * layout.pairs, triton.cdiv(count, tile.rows))](
        y, tokens.slots, bank, stride, ranks, group.U, group.S, y if mixed is None else mixed, stream.squares,
        group.bias, layout.cos, layout.sin, q_norm, k_norm, tokens.positions, tokens.lines, query, keys, values,
        keys.stride(0), keys.stride(1), count, eps, norm_eps, y.stride(0), group.columns[1] - first,
        group.columns[2] - first, *group.ranks, K=group.U.shape[1], T=tile.triplets, H=layout.queries, G=layout.pairs,
        SIZE=layout.size, D_IN=stream.x.shape[1], PARTS=parts, PARTS2=triton.next_power_of_2(parts),
        BIAS=group.bias is not None, NORM=layout.norms is not None, ADAPTED=vectors is not None,
        MIX=_mix_size(mixed, group), M=tile.rows, WAIT=early(y.device), num_warps=tile.warps,
        launch_pdl=early(y.device),
    )  # fmt: skip
    return query
