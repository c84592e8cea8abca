"""The key/value pool, and the attention over it.

Shapes: L layers, C lines of the pool, G key/value heads, H query heads, D head size, B rows and T positions of one
forward.
"""

import mmap
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, gcd

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from osora_core.attention import Attending, weigh
from osora_core.errors import MemoryTooSmall
from osora_core.free_memory import mappable_bytes
from osora_core.lazy_zeros import LazyZeros

LEAST_TOKENS = 256
"""Of prompt and answer together, for which a pool must have room: a question with a short answer."""
# Of the address space that is left: the rest is for what steps work on.
_MAPPED_SHARE = 0.5


@dataclass(frozen=True)
class PoolSize:
    """`lines` sequences of up to `length` tokens each, and up to `tokens` of all of them together, of `token_bytes`."""

    lines: int
    length: int
    tokens: int
    token_bytes: int

    @property
    def bytes(self) -> int:
        """What keys and values take when all tokens are there."""
        return self.tokens * self.token_bytes

    @classmethod
    def within(
        cls, limit: float, config: PreTrainedConfig, lines: int, length: int, *, dtype: torch.dtype,
        device: torch.device,
    ) -> "PoolSize":  # fmt: skip
        """The largest size of up to so many lines of up to this length that takes no more than `limit` bytes.

        On a CPU all lines share the limit, because a page is taken when it is written; on a GPU a line is taken as a
        whole, and there are fewer of them. Raises MemoryTooSmall where not even one short text fits.
        """
        heads, size = _heads_of(config)
        token_bytes = 2 * config.num_hidden_layers * heads * size * dtype.itemsize
        room = limit if device.type == "cuda" else _MAPPED_SHARE * mappable_bytes()
        if room < lines * (length + 1) * token_bytes:
            lines = max(1, int(room // ((length + 1) * token_bytes)))
        least, tokens = min(length, LEAST_TOKENS), min(limit, room) / token_bytes
        if tokens < least + 1:
            raise MemoryTooSmall(
                f"{_mib(min(limit, room))} are there for keys and values, and a text of {least} tokens takes "
                f"{_mib((least + 1) * token_bytes)}",
                next_action="give this process more memory",
            )
        length = int(min(length, tokens - 1))
        return cls(lines, length, int(min(lines * length, tokens)), token_bytes)


def _heads_of(config: PreTrainedConfig) -> tuple[int, int]:
    """Key/value heads of a layer, and their size."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _mib(count: float) -> str:
    return f"{count / 2**20:.3g} MiB"


class KVPool:
    """Keys and values [L, C, G, length + 1 or more, D]: a line for each sequence.

    Live sequences fill lines 0, 1, 2 ... without a gap, so that a forward reads a slice of the pool and copies nothing.
    Position `length` of a line takes what padding writes. Whoever fills the pool keeps to `size.tokens`.

    Beyond what a live sequence holds there are only zeros. Attention multiplies what it masks by zero, which a number
    that is not finite survives: left behind by a broken adapter, it would reach the line's next owner. On a CPU these
    zeros take no memory: a page comes when it is written, and goes when its sequence ends.
    """

    def __init__(self, config: PreTrainedConfig, size: PoolSize, *, dtype: torch.dtype, device: torch.device) -> None:
        heads, width = _heads_of(config)
        self.size = size
        self.lines, self.length = size.lines, size.length
        position_bytes = width * dtype.itemsize
        # Every line begins with a page of its own.
        step = mmap.PAGESIZE // gcd(mmap.PAGESIZE, position_bytes) if device.type == "cpu" else 1
        positions = step * ceil((size.length + 1) / step)
        shape = (config.num_hidden_layers, size.lines, heads, positions, width)
        self._pages = [LazyZeros(shape, dtype) for _ in range(2)] if device.type == "cpu" else []
        if self._pages:
            self.keys, self.values = (pages.tensor for pages in self._pages)
        else:
            self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self._position_bytes, self._strip_bytes = position_bytes, positions * position_bytes

    def move(self, source: int, target: int, length: int) -> None:
        """Bring the first `length` positions of one line to another, which is empty."""
        for pool in (self.keys, self.values):
            pool[:, target, :, :length] = pool[:, source, :, :length]
        self.clear(source, length)

    def clear(self, line: int, length: int) -> None:
        """Make the first `length` positions of a line zero again."""
        if not self._pages:
            for pool in (self.keys, self.values):
                pool[:, line, :, :length] = 0
            return
        layers, lines, heads = self.keys.shape[:3]
        held = mmap.PAGESIZE * ceil(length * self._position_bytes / mmap.PAGESIZE)
        for pages, layer, head in product(self._pages, range(layers), range(heads)):
            pages.clear(((layer * lines + line) * heads + head) * self._strip_bytes, held)


@dataclass(frozen=True)
class CacheView:
    """What one forward uses of the pool: lines [start, start + B), each query's position [B, T], what it may read."""

    pool: KVPool
    start: int
    positions: Tensor
    mask: Tensor

    @classmethod
    def of(cls, pool: KVPool, start: int, positions: Tensor, read_length: int) -> "CacheView":
        """`mask` [B, 1, T, read_length] lets each query see its own position and those before."""
        reach = torch.arange(read_length, device=positions.device)
        return cls(pool, start, positions, (reach <= positions.unsqueeze(-1)).unsqueeze(1))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: Attending) -> Tensor:
        """Store key [B, G, T, D] and value [B, G, T, Dv] at the positions; attend query [B, H, T, D], as `how` says;
        return [B, T, H, Dv]."""
        rows, heads, steps, size = query.shape
        index = torch.arange(rows, device=query.device).unsqueeze(1)
        own = slice(self.start, self.start + rows)
        read = self.mask.shape[-1]
        keys, values = self.pool.keys[layer, own], self.pool.values[layer, own]
        keys[index, :, self.positions] = key.transpose(1, 2)
        values[index, :, self.positions] = value.transpose(1, 2)
        groups = key.shape[1]
        mask = self.mask if how.window is None else self._mask_within(how.window)
        if steps == 1 and how.sinks is None:
            # One query a row: fold the heads that share a key/value head into the query length.
            query = query.view(rows, groups, heads // groups, size)
        out = weigh(query, keys[:, :, :read], values[:, :, :read], mask, how)
        return out.reshape(rows, heads, steps, -1).transpose(1, 2)

    def _mask_within(self, window: int) -> Tensor:
        """The mask [B, 1, T, read] of layers that look back only so far."""
        if window not in self._windowed:
            reach = torch.arange(self.mask.shape[-1], device=self.mask.device)
            near = reach > (self.positions - window).unsqueeze(-1)
            self._windowed[window] = self.mask & near.unsqueeze(1)
        return self._windowed[window]

    @cached_property
    def _windowed(self) -> dict[int, Tensor]:
        return {}

    def attend_one(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """The same for one position a row, as batched products: query [B, H, D], key, value [B, G, D] -> [B, H * D]."""
        rows, heads, size = query.shape
        pairs, read = key.shape[1], self.mask.shape[-1]
        own = slice(self.start, self.start + rows)
        keys, values = (pool[layer, own].flatten(0, 1) for pool in (self.pool.keys, self.pool.values))
        keys[self._entries, self._places] = key.reshape(-1, size)
        values[self._entries, self._places] = value.reshape(-1, size)
        folded = query.reshape(rows * pairs, heads // pairs, size)
        scores = torch.baddbmm(self._bias, folded, keys[:, :read].transpose(1, 2), alpha=scaling)
        return torch.bmm(scores.softmax(dim=-1), values[:, :read]).view(rows, -1)

    @cached_property
    def _bias(self) -> Tensor:
        """0 where a row may look and -inf where not, [B * G, 1, read]."""
        hidden = torch.zeros(self.mask.shape, device=self.mask.device, dtype=self.pool.keys.dtype)
        hidden = hidden.masked_fill_(~self.mask, -torch.inf).squeeze(1)
        return hidden.repeat_interleave(self.pool.keys.shape[2], dim=0)

    @cached_property
    def _entries(self) -> Tensor:
        """The index of each line and key/value head, both taken as one dimension, [B * G]."""
        return torch.arange(self.positions.shape[0] * self.pool.keys.shape[2], device=self.positions.device)

    @cached_property
    def _places(self) -> Tensor:
        """The position that each of these writes, [B * G]."""
        return self.positions[:, 0].repeat_interleave(self.pool.keys.shape[2])
