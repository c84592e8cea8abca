"""How many tokens and columns one program of a kernel takes: the fastest that was measured and that fits the device.

K is the rank to which a group's factors are padded (`osora_core.kernels.group`).
"""

from dataclasses import dataclass
from functools import cache

import torch
import triton


@cache
def early(device: torch.device) -> bool:
    """Whether a kernel may start before the one that it follows has ended (programmatic dependent launch)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


@dataclass(frozen=True)
class Tile:
    """Tokens and columns of a program, its warps; how many blocks of columns it takes one after another, and in how
    many stages they are loaded."""

    rows: int
    columns: int
    warps: int
    steps: int = 1
    stages: int = 1


# The fastest first, by the number of tokens up to which they are: measured on one H100 or H200 at 8, 64 and 256 tokens
# and Llama-8B shapes. The next ones are for higher ranks and for GPUs with less shared memory. A head's columns are its
# own.
_RESIDUAL = {16: (Tile(16, 32, 4),), 64: (Tile(16, 64, 4), Tile(16, 32, 4)), 0: (Tile(64, 64, 8), Tile(16, 32, 4))}
_GATE = {
    16: (Tile(16, 32, 4),),
    64: (Tile(64, 128, 8), Tile(64, 64, 8), Tile(32, 64, 4), Tile(16, 32, 4)),
    0: (Tile(64, 64, 8, 7, 2), Tile(64, 64, 4), Tile(32, 64, 4), Tile(16, 32, 4)),
}
_HEADS = {16: (Tile(16, 0, 4),), 64: (Tile(16, 0, 8),), 0: (Tile(64, 0, 4), Tile(32, 0, 4), Tile(16, 0, 4))}


def padded_rank(K: int) -> int:
    """K as the matrix units take it: a power of two, 16 or more."""
    return max(16, triton.next_power_of_2(K))


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may have."""
    if device.type != "cuda":
        return 2**40
    index = torch.cuda.current_device() if device.index is None else device.index
    return triton.runtime.driver.active.utils.get_device_properties(index)["max_shared_mem"]


def gate_bytes(tile: Tile, K: int) -> int:
    """The shared memory that Triton gives the gate's kernel: scaled z and U of both linears, the rest by stages."""
    rows, columns, stages = tile.rows, tile.columns, tile.stages
    return 8 * rows * K + 4 * columns * K * stages + 2 * rows * columns + 8 * rows * columns * (stages - 1)


def one_bytes(rows: int, columns: int, K: int) -> int:
    """The shared memory that Triton gives a kernel for one linear: scaled z twice, and a tile of U."""
    return 4 * rows * K + 2 * columns * K


def _class(count: int) -> int:
    """The key of the tables for so many tokens."""
    return 16 if count <= 16 else 64 if count <= 64 else 0


def residual_tile(count: int, K: int, device: torch.device) -> Tile:
    """The tile for adding `count` tokens' outputs to the residual stream."""
    limit = shared_memory(device)
    return next(t for t in _RESIDUAL[_class(count)] if one_bytes(t.rows, t.columns, padded_rank(K)) <= limit)


def gate_tile(count: int, K: int, device: torch.device) -> Tile:
    """The tile for the gated MLP of `count` tokens."""
    return next(t for t in _GATE[_class(count)] if gate_bytes(t, padded_rank(K)) <= shared_memory(device))


def heads_tile(count: int, size: int, K: int, device: torch.device) -> Tile:
    """The tile for the queries, keys and values of `count` tokens, in heads of `size`."""
    limit = shared_memory(device)
    return next(t for t in _HEADS[_class(count)] if one_bytes(t.rows, size, padded_rank(K)) <= limit)


def fits(K: int, size: int, device: torch.device) -> bool:
    """Whether the kernels' smallest tiles fit the device at rank K and heads of this size."""
    limit, K = shared_memory(device), padded_rank(K)
    return max(gate_bytes(Tile(16, 32, 4), K), one_bytes(16, size, K)) <= limit


def highest_rank(size: int, device: torch.device) -> int:
    """The highest rank at which the kernels fit the device, for heads of this size; 0 if none does."""
    return max((K for K in (2**power for power in range(4, 16)) if fits(K, size, device)), default=0)
