"""How the engine runs its batch: tokens decoded, prompts read, rows that come, go and change places.

Batch rows [0, n) have no gap. What they hold (an adapter, keys and values) belongs to an execution.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from osora_core.attention import shortest_window
from osora_core.inference.banks import Banks, Places
from osora_core.inference.cache import CacheView, KVPool
from osora_core.inference.decoder import Decoder
from osora_core.inference.lora_bank import PassLoras
from osora_core.inference.packed import Packed, PackedDecoder
from osora_core.inference.row_adapters import RowAdapters
from osora_core.inference.segments import PADDING, Segment, segments_of
from osora_core.linear import use_loras, use_slots
from osora_core.runtime import Runtime


class Execution(Protocol):
    """Shapes: B batch rows, d hidden size, V tokens in the vocabulary."""

    ahead: bool
    """Whether `decode` returns before its result is computed: the next may then be launched before the last is read."""
    skips: bool
    """Whether a row that is left out costs next to nothing."""

    def warm_up(self) -> None:
        """Do now what the first steps would otherwise do: compile and capture."""

    def join(self, row: int, places: Places) -> None:
        """A new batch row begins, whose adapter lies there."""

    def move(self, source: int, target: int, length: int) -> None:
        """Batch row `source`, with `length` tokens in the cache, becomes row `target`, which is empty."""

    def leave(self, row: int, length: int) -> None:
        """A batch row with `length` tokens in the cache ends."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Logits [B, V] after one more token for each of the first B rows; valid until the next call.

        A row at position -1 is left out: nothing is kept of its token, and its logits mean nothing.
        """

    def decode_and_read(
        self, tokens: Sequence[int], positions: Sequence[int], chunks: Sequence[tuple[int, ...]], cached: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """The same tokens, and for each row behind theirs a chunk of prompt, to follow its `cached` tokens.

        Hidden states [B, d] of the tokens and [len, d] of each chunk; valid until the next call.
        """


def choose(runtime: Runtime, pool: KVPool, banks: Banks, *, brief: bool) -> Execution:
    """The fastest execution that computes this model on its device; a brief one compiles and captures nothing."""
    window = shortest_window(runtime.config)
    if window is not None and window < pool.length:
        # Our own wiring looks back to the beginning.
        return Padded(runtime, pool, banks)
    if PackedDecoder.supports(runtime) and not brief:
        return Packed(runtime, pool, banks)
    return (Flat if Decoder.supports(runtime) else Padded)(runtime, pool, banks)


class _Direct:
    """What the executions share that compute at once and need no preparation."""

    ahead = False
    skips = False

    def __init__(self, runtime: Runtime, pool: KVPool, banks: Banks) -> None:
        self._runtime = runtime
        self._pool = pool
        self._adapters = RowAdapters(runtime.basis, pool.lines, runtime.device, banks)
        self._loras = banks.loras
        self._lora_slots = [0] * pool.lines

    def warm_up(self) -> None:
        """Nothing: there is nothing to compile."""

    def join(self, row: int, places: Places) -> None:
        self._adapters.fill(row, places)
        self._lora_slots[row] = places.lora

    def move(self, source: int, target: int, length: int) -> None:
        self._pool.move(source, target, length)
        self._adapters.move(source, target)
        self._lora_slots[target], self._lora_slots[source] = self._lora_slots[source], 0

    def leave(self, row: int, length: int) -> None:
        self._pool.clear(row, length)
        self._adapters.leave(row)
        self._lora_slots[row] = 0

    def _low_rank(self, parts: Sequence[tuple[int, list[list[int]]]], *, flat: bool) -> PassLoras | None:
        """The LoRAs of tokens of neighbouring rows: of each part the first row and its rows' tokens. All of them one
        after another if `flat`, else one part alone, row by row. None if no row has one."""
        if not any(self._lora_slots):
            return None
        own = [(self._lora_slots[row + index], len(ids)) for row, rows in parts for index, ids in enumerate(rows)]
        if not any(slot for slot, _ in own):
            return None
        columns = self._loras.of([slot for slot, _ in own])
        slots = [slot for slot, tokens in own for _ in range(tokens)] if flat else [[slot] for slot, _ in own]
        return PassLoras.of(columns, torch.tensor(slots, dtype=torch.int32, device=self._runtime.device))


class Flat(_Direct):
    """All tokens of a pass in one sequence, through our own wiring: for CPUs."""

    skips = True

    def __init__(self, runtime: Runtime, pool: KVPool, banks: Banks) -> None:
        super().__init__(runtime, pool, banks)
        self._decoder = Decoder(runtime)

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        hidden, _ = self._forward(tokens, positions, (), ())
        return _spread(self._runtime.logits(hidden), positions)

    def decode_and_read(
        self, tokens: Sequence[int], positions: Sequence[int], chunks: Sequence[tuple[int, ...]], cached: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        hidden, read = self._forward(tokens, positions, chunks, cached)
        return _spread(hidden, positions), read

    def _forward(
        self, tokens: Sequence[int], positions: Sequence[int], chunks: Sequence[tuple[int, ...]], cached: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states of the tokens of `_runs`, one after another, and of each chunk."""
        runs = _runs(positions)
        parts = [
            (own.start, *_padded([(token,) for token in tokens[own]], positions[own], self._pool.length))
            for own in runs
        ]
        parts += [
            (len(tokens) + own.start, *_padded(chunks[own], cached[own], self._pool.length))
            for own in segments_of([len(chunk) for chunk in chunks])
        ]
        ids, where, segments, first = [], [], [], 0
        for row, own_ids, places in parts:
            cache = _view(self._pool, row, places, self._runtime.device)
            rows, steps = cache.positions.shape
            adapters = self._adapters.view(row, rows, single=steps == 1)
            segments.append(Segment(first, rows, steps, cache, adapters, whole=len(parts) == 1))
            ids += own_ids
            where.append(cache.positions.flatten())
            first += rows * steps
        flat = torch.tensor([token for row in ids for token in row], device=self._runtime.device)
        with use_loras(self._low_rank([(row, own_ids) for row, own_ids, _ in parts], flat=True)):
            hidden = self._decoder.hidden_states(flat, torch.cat(where), segments)
        read = [states for segment in segments[len(runs) :] for states in segment.by_row(hidden)]
        states = [own[: len(chunk)] for own, chunk in zip(read, chunks, strict=True)]
        return hidden[: sum(own.stop - own.start for own in runs)], states


class Padded(_Direct):
    """Rows padded to one length: for any model, through transformers' own forward."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        return self._runtime.logits(self._decode(tokens, positions))

    def decode_and_read(
        self, tokens: Sequence[int], positions: Sequence[int], chunks: Sequence[tuple[int, ...]], cached: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        read = self._forward(len(tokens), *_padded(chunks, cached, self._pool.length))
        decoded = self._decode(tokens, positions) if tokens else read[:0, 0]
        return decoded, [states[: len(chunk)] for states, chunk in zip(read, chunks, strict=True)]

    def _decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Hidden states [B, d]."""
        return self._forward(0, *_padded([(token,) for token in tokens], positions, self._pool.length))[:, 0]

    def _forward(self, start: int, ids: list[list[int]], positions: list[list[int]]) -> Tensor:
        """Hidden states [B, T, d] of the tokens `ids` at `positions`, from row `start` on."""
        device = self._runtime.device
        tokens, cache = torch.tensor(ids, device=device), _view(self._pool, start, positions, device)
        # Where padding goes is no position that every base has an embedding for.
        places = cache.positions.clamp(max=self._pool.length - 1)
        with use_loras(self._low_rank([(start, ids)], flat=False)):
            if self._adapters.rank(start, len(ids)) == 0:
                return self._runtime.hidden_states(tokens, position_ids=places, cache=cache)
            with use_slots(self._adapters.bank, torch.arange(start + 1, start + 1 + len(ids), device=device)):
                return self._runtime.hidden_states(tokens, position_ids=places, cache=cache)


def _runs(positions: Sequence[int]) -> list[slice]:
    """Rows side by side of which few are left out: a run of its own costs more than these."""
    runs: list[slice] = []
    for row, position in enumerate(positions):
        if position < 0:
            continue
        if runs and row - runs[-1].stop <= PADDING:
            runs[-1] = slice(runs[-1].start, row + 1)
        else:
            runs.append(slice(row, row + 1))
    return runs


def _spread(packed: Tensor, positions: Sequence[int]) -> Tensor:
    """A value for each row, [B, k], from those [b, k] of the rows of `_runs`."""
    if len(packed) == len(positions):
        return packed
    rows = [row for own in _runs(positions) for row in range(own.start, own.stop)]
    return packed.new_zeros(len(positions), packed.shape[1]).index_copy_(
        0, torch.tensor(rows, dtype=torch.long, device=packed.device), packed
    )


def _padded(
    chunks: Sequence[tuple[int, ...]], cached: Sequence[int], trash: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of equally many for each row, and their positions behind its `cached` tokens; padding goes to `trash`, and
    so does all of a row at position -1."""
    longest = max(map(len, chunks))
    ids = [list(c) + [0] * (longest - len(c)) for c in chunks]
    positions = [
        [trash] * longest if begin < 0 else [*range(begin, begin + len(c)), *[trash] * (longest - len(c))]
        for begin, c in zip(cached, chunks, strict=True)
    ]
    return ids, positions


def _view(pool: KVPool, start: int, positions: list[list[int]], device: torch.device) -> CacheView:
    """The cache as tokens at `positions` see it, of rows from `start` on."""
    read = 1 + max((p for row in positions for p in row if p < pool.length), default=0)
    return CacheView.of(pool, start, torch.tensor(positions, device=device), read)
