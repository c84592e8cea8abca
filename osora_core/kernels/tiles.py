"""How many tokens and columns one program of a kernel takes: the fastest that was measured and that fits the device.

K is the rank to which a group's factors are padded (`osora_core.kernels.group`). A program takes all triplets at once
up to _AT_ONCE of them, and where that is too much for shared memory a part after the other: every rank fits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
    many stages they are loaded; how many triplets at a time."""

    rows: int
    columns: int
    warps: int
    steps: int = 1
    stages: int = 1
    triplets: int = 0


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


# More triplets at once would leave a multiprocessor with one program, and pad ranks to powers of two that are far off.
_AT_ONCE, _PART, _LEAST = 512, 128, 16


def _parts(K: int) -> Iterator[int]:
    """How many triplets a program may take at a time, the fastest first."""
    whole = padded_rank(K)
    if whole <= _AT_ONCE:
        yield whole
    part = _PART
    while part >= _LEAST:
        if part < whole:
            yield part
        part //= 2


def _fitting(tiles: tuple[Tile, ...], used: Callable[[Tile, int], int], K: int, device: torch.device) -> Tile:
    """The first of the tiles whose program, which needs `used` bytes for so many triplets, fits the device."""
    limit = shared_memory(device)
    return next(
        replace(tile, triplets=triplets) for triplets in _parts(K) for tile in tiles if used(tile, triplets) <= limit
    )


def _class(count: int) -> int:
    """The key of the tables for so many tokens."""
    return 16 if count <= 16 else 64 if count <= 64 else 0


def residual_tile(count: int, K: int, device: torch.device) -> Tile:
    """The tile for adding `count` tokens' outputs to the residual stream."""
    return _fitting(_RESIDUAL[_class(count)], lambda tile, part: one_bytes(tile.rows, tile.columns, part), K, device)


def gate_tile(count: int, K: int, device: torch.device) -> Tile:
    """The tile for the gated MLP of `count` tokens."""
    return _fitting(_GATE[_class(count)], gate_bytes, K, device)


def heads_tile(count: int, size: int, K: int, device: torch.device) -> Tile:
    """The tile for the queries, keys and values of `count` tokens, in heads of `size`."""
    return _fitting(_HEADS[_class(count)], lambda tile, part: one_bytes(tile.rows, size, part), K, device)
