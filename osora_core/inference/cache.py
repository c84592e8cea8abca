"""The key/value pool, and the attention over it.

Shapes: L layers, C lines of the pool, G key/value heads, H query heads, D head size, B rows and T positions of one
forward.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from osora_core.attention import Attending, weigh


class KVPool:
    """Keys and values [L, C, G, length + 1, D]: a line for each sequence.

    Live sequences fill lines 0, 1, 2 ... without a gap, so that a forward reads a slice of the pool and copies nothing.
    The last position of a line takes what padding writes.

    Beyond what a live sequence holds there are only zeros. Attention multiplies what it masks by zero, which a number
    that is not finite survives: left behind by a broken adapter, it would reach the line's next owner.
    """

    def __init__(
        self, config: PreTrainedConfig, lines: int, length: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, lines, heads, length + 1, size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lines = lines
        self.length = length

    def move(self, source: int, target: int, length: int) -> None:
        """Bring the first `length` positions of one line to another, which is empty."""
        for pool in (self.keys, self.values):
            pool[:, target, :, :length] = pool[:, source, :, :length]
        self.clear(source, length)

    def clear(self, line: int, length: int) -> None:
        """Make the first `length` positions of a line zero again."""
        for pool in (self.keys, self.values):
            pool[:, line, :, :length] = 0


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
