"""Causal attention of packed tokens over the lines of a key/value pool, for prompts and for decoding alike.

Tokens that follow each other in one line of the pool form a block. A program takes the queries of one block and one
key/value head, and folds the query heads that share it into the rows of its tile. The keys of a long line can be split
among programs.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_wait

from osora_core.kernels.expand import Tokens
from osora_core.kernels.tiles import early

# Rows of a tile: queries of a block times query heads a key/value head.
_TILE = 64
_KEYS = 64


@dataclass(frozen=True)
class Blocks:
    """Runs of neighbouring tokens, int32 each: the first token, and how many (0: nothing to do)."""

    firsts: Tensor
    counts: Tensor
    tile: int
    splits: int


def block_size(folded: int) -> int:
    """How many tokens of a prompt a block may have, for `folded` query heads a key/value head."""
    return max(1, _TILE // folded)


@triton.jit
def _attend_kernel(
    query, key_pool, value_pool, firsts, counts, positions, lines, out, partial, limits, line_stride, head_stride,
    scale, H: tl.constexpr, FOLDED: tl.constexpr, SIZE: tl.constexpr, M: tl.constexpr, B: tl.constexpr,
    SPLITS: tl.constexpr, WAIT: tl.constexpr,
):  # fmt: skip
    block, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first, count = tl.load(firsts + block), tl.load(counts + block)
    start = tl.load(positions + first)
    length = tl.where(count > 0, start + count, 0)
    line = tl.load(lines + first).to(tl.int64)
    m, size = tl.arange(0, M), tl.arange(0, SIZE)
    token = m // FOLDED
    live = token < count
    head = group * FOLDED + m % FOLDED
    at = ((first + token) * H + head)[:, None] * SIZE + size[None, :]
    if WAIT:
        gdc_wait()
    q = tl.load(query + at, mask=live[:, None], other=0.0)
    keys = key_pool + line * line_stride + group * head_stride
    values = value_pool + line * line_stride + group * head_stride
    share = tl.cdiv(tl.cdiv(length, SPLITS), B) * B
    begin = split * share
    end = tl.minimum(length, begin + share)
    best = tl.full([M], float("-inf"), tl.float32)
    mass = tl.zeros([M], tl.float32)
    total = tl.zeros([M, SIZE], tl.float32)
    for base in range(begin, end, B):
        j = base + tl.arange(0, B)
        read = j < end
        k = tl.load(keys + j[None, :] * SIZE + size[:, None], mask=read[None, :], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee") * scale
        scores = tl.where(read[None, :] & (j[None, :] <= (start + token)[:, None]), scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, axis=1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(best - safe)
        v = tl.load(values + j[:, None] * SIZE + size[None, :], mask=read[:, None], other=0.0)
        total = total * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        mass = mass * shrink + tl.sum(weights, axis=1)
        best = higher
    if SPLITS == 1:
        total = total / tl.where(mass > 0, mass, 1.0)[:, None]
        tl.store(out + at, total.to(out.dtype.element_ty), mask=live[:, None])
    else:
        place = ((first + token) * H + head) * SPLITS + split
        tl.store(partial + place[:, None] * SIZE + size[None, :], total, mask=live[:, None])
        tl.store(limits + place * 2, best, mask=live)
        tl.store(limits + place * 2 + 1, mass, mask=live)


@triton.jit
def _combine_kernel(partial, limits, out, SIZE: tl.constexpr, SPLITS: tl.constexpr):
    """The parts of one query and head, weighted by their share of the softmax."""
    row = tl.program_id(0)
    split, size = tl.arange(0, SPLITS), tl.arange(0, SIZE)
    best = tl.load(limits + (row * SPLITS + split) * 2)
    mass = tl.load(limits + (row * SPLITS + split) * 2 + 1)
    highest = tl.max(best, axis=0)
    weight = tl.exp2(best - tl.where(highest == float("-inf"), 0.0, highest))
    parts = tl.load(partial + (row * SPLITS + split)[:, None] * SIZE + size[None, :])
    whole = tl.sum(weight * mass, axis=0)
    total = tl.sum(parts * weight[:, None], axis=0) / tl.where(whole > 0, whole, 1.0)
    tl.store(out + row * SIZE + size, total.to(out.dtype.element_ty))


def attend(query: Tensor, keys: Tensor, values: Tensor, tokens: Tokens, blocks: Blocks, scaling: float) -> Tensor:
    """query [N, H, SIZE] over the pools [C, G, L, SIZE], each token up to its own position; returns [N, H * SIZE].

    What a block's tokens see must be in the pools already. A token that is in no block keeps what memory holds.
    """
    count, H, size = query.shape
    G, splits = keys.shape[1], blocks.splits
    out = torch.empty_like(query)
    partial = limits = out
    if splits > 1:
        partial = torch.empty(count, H, splits, size, dtype=torch.float32, device=query.device)
        limits = torch.empty(count, H, splits, 2, dtype=torch.float32, device=query.device)
    # exp2 is the cheaper one: the scale carries log2(e).
    scale = scaling * 1.4426950408889634
    _attend_kernel[(blocks.firsts.shape[0], G, splits)](
        query, keys, values, blocks.firsts, blocks.counts, tokens.positions, tokens.lines, out, partial, limits,
        keys.stride(0), keys.stride(1), scale, H=H, FOLDED=H // G, SIZE=size, M=blocks.tile, B=_KEYS, SPLITS=splits,
        WAIT=early(query.device), num_warps=4, num_stages=2, launch_pdl=early(query.device),
    )  # fmt: skip
    if splits > 1:
        _combine_kernel[(count * H,)](partial, limits, out, SIZE=size, SPLITS=splits, num_warps=2)
    return out.view(count, -1)
