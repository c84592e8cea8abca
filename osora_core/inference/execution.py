"""How the engine runs its batch: prompts read, tokens decoded, rows that come, go and change places.

Batch rows [0, n) have no gap. What they hold (an adapter, keys and values) belongs to an execution.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from osora_core.bank import Bank
from osora_core.inference.cache import CacheView, KVPool
from osora_core.inference.decoder import Decoder
from osora_core.inference.lanes import Lanes
from osora_core.inference.packed import Packed, PackedDecoder
from osora_core.linear import use_slots
from osora_core.runtime import Runtime


class Execution(Protocol):
    """Shapes: B batch rows, d hidden size, V tokens in the vocabulary."""

    ahead: bool
    """Whether `decode` returns before it has computed, so that it pays to call it before its last result is used up."""

    def warm_up(self) -> None:
        """Do now what the first steps would otherwise do: compile and capture."""

    def join(self, row: int, slot: int, rank: int) -> None:
        """A new batch row runs with the adapter in a bank slot; slot 0 is the bare base."""

    def move(self, source: int, target: int, length: int) -> None:
        """What is batch row `source`, with `length` tokens in the cache, becomes row `target`, which has left."""

    def leave(self, row: int, length: int) -> None:
        """A batch row with `length` tokens in the cache is no more."""

    def read(self, start: int, chunks: Sequence[tuple[int, ...]], cached: Sequence[int]) -> list[Tensor]:
        """Read a chunk of prompt for each row from `start` on, behind its `cached` tokens; hidden states [len, d].

        They are valid until the next call."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Logits [B, V] after one more token for each of the first B rows; valid until the next call.

        A row at position -1 is left out: nothing is kept of its token, and its logits mean nothing.
        """


def choose(runtime: Runtime, pool: KVPool, bank: Bank, *, brief: bool) -> Execution:
    """The fastest execution that computes this model on its device; a brief one compiles and captures nothing."""
    packed = PackedDecoder.supports(runtime) and not brief
    return Packed(runtime, pool, bank) if packed else Padded(runtime, pool, bank)


class Padded:
    """Rows padded to one length: for CPUs, and for any model through transformers' own forward."""

    ahead = False

    def __init__(self, runtime: Runtime, pool: KVPool, bank: Bank) -> None:
        self._runtime = runtime
        self._pool = pool
        self._bank = bank
        self._lanes = Lanes(runtime.basis, pool.rows, runtime.device)
        self._decoder = Decoder(runtime, self._lanes) if Decoder.supports(runtime) else None

    def warm_up(self) -> None:
        """Nothing: there is nothing to compile."""

    def join(self, row: int, slot: int, rank: int) -> None:
        self._lanes.fill(row, self._bank, slot, rank)

    def move(self, source: int, target: int, length: int) -> None:
        self._pool.move(source, target, length)
        self._lanes.move(source, target)

    def leave(self, row: int, length: int) -> None:
        self._pool.clear(row, length)

    def read(self, start: int, chunks: Sequence[tuple[int, ...]], cached: Sequence[int]) -> list[Tensor]:
        longest = max(map(len, chunks))
        trash = self._pool.length
        ids = [list(c) + [0] * (longest - len(c)) for c in chunks]
        positions = [
            list(range(begin, begin + len(c))) + [trash] * (longest - len(c))
            for begin, c in zip(cached, chunks, strict=True)
        ]
        hidden = self._forward(start, ids, positions)
        return [hidden[index, : len(chunk)] for index, chunk in enumerate(chunks)]

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        trash = self._pool.length
        places = [[trash if position < 0 else position] for position in positions]
        hidden = self._forward(0, [[token] for token in tokens], places)
        return (self._decoder or self._runtime).logits(hidden[:, 0])

    def _forward(self, start: int, ids: list[list[int]], positions: list[list[int]]) -> Tensor:
        """Hidden states [B, T, d] of the tokens `ids` at `positions`, rows starting at pool row `start`."""
        device = self._runtime.device
        where, tokens = torch.tensor(positions, device=device), torch.tensor(ids, device=device)
        read = 1 + max(p for row in positions for p in row if p < self._pool.length)
        cache = CacheView.of(self._pool, start, where, read)
        if self._decoder is not None:
            return self._decoder.hidden_states(tokens, cache)
        if self._lanes.window(start, len(ids)).rank == 0:
            return self._runtime.hidden_states(tokens, position_ids=where, cache=cache)
        with use_slots(self._lanes.bank, torch.arange(start + 1, start + 1 + len(ids), device=device)):
            return self._runtime.hidden_states(tokens, position_ids=where, cache=cache)
