"""What the mixes of some tokens' adapters add to their z: C z, for all linears of a group at once.

A kernel of its own, because every program of `osora_core.kernels.expand` would else read all of C for its few columns.
Only passes in which a token has a mix launch it. C lies as `osora_core.mix` says, that of each slot by its own size.

Shapes: N tokens, n linears of a group with K columns of z each, c the largest mix of the bank.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_wait

from osora_core.kernels.group import Group
from osora_core.kernels.tiles import early

# Rows of C a program takes at a time, and its warps.
_ROWS, _WARPS = 16, 4


@dataclass(frozen=True)
class Mixes:
    """The mixes of N tokens. values [m, M]: of each slot; sides [m, modules] and starts [m, modules], int32: how large
    the C of each module is there, 0 in slot 0, and where it begins; slots [N] int32: each token's."""

    values: Tensor
    sides: Tensor
    starts: Tensor
    slots: Tensor
    largest: int


@triton.jit
def _mix_kernel(
    y, slots, values, stride, sides, starts, out, width, outputs, modules, first, second, third, K: tl.constexpr,
    n: tl.constexpr, C: tl.constexpr, C2: tl.constexpr, B: tl.constexpr, WAIT: tl.constexpr,
):  # fmt: skip
    token, part = tl.program_id(0), tl.program_id(1)
    j = tl.program_id(2) * B + tl.arange(0, B)
    k = tl.arange(0, C2)
    slot = tl.load(slots + token).to(tl.int64)
    module = tl.where(part == 0, first, tl.where(part == 1, second, third))
    side = tl.load(sides + slot * modules + module)
    begin = tl.load(starts + slot * modules + module)
    mask = (j < side)[:, None] & (k < side)[None, :]
    own = tl.load(values + slot * stride + begin + j[:, None] * side + k[None, :], mask=mask, other=0.0)
    if WAIT:
        gdc_wait()
    z = tl.load(y + token * width + outputs + part * K + k, mask=k < side, other=0.0)
    mixed = tl.sum(own.to(tl.float32) * z.to(tl.float32)[None, :], axis=1)
    tl.store(out + (token * n + part) * C + j, mixed.to(out.dtype.element_ty), mask=j < C)


def mix(y: Tensor, group: Group, mixes: Mixes | None) -> Tensor | None:
    """C z [N, n c] of each token and linear of y = W h [N, D + n K], zero where a token has no mix; None without."""
    if mixes is None:
        return None
    count, n, c = y.shape[0], len(group.ranks), mixes.largest
    out = torch.empty(count, n * c, dtype=y.dtype, device=y.device)
    modules = [index for index, _ in group.modules]
    _mix_kernel[(count, n, triton.cdiv(c, _ROWS))](
        y, mixes.slots, mixes.values, mixes.values.stride(0), mixes.sides, mixes.starts, out, y.stride(0),
        group.U.shape[0], mixes.sides.shape[1], *(modules * 3)[:3], K=group.U.shape[1], n=n, C=c,
        C2=triton.next_power_of_2(c), B=_ROWS, WAIT=early(y.device), num_warps=_WARPS, launch_pdl=early(y.device),
    )  # fmt: skip
    return out
