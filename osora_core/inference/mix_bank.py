"""The mixes of the adapters that have one: room of their own, which an adapter without takes none of.

Shapes: M values of a mix (`osora_core.mix`), n slots, m mixed rows of a pass, c a mix's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osora_core.basis import Basis
from osora_core.errors import OutOfSlots
from osora_core.inference.request import AdapterRow
from osora_core.lazy_zeros import zeros
from osora_core.mix import mix_length, mix_spans


def mix_bytes(basis: Basis, largest: int, adapters: int) -> int:
    """What a bank for so many mixes takes, in the basis's dtype."""
    return adapters * mix_length(basis.spans, largest) * basis.dtype.itemsize if largest else 0


@dataclass(frozen=True)
class Stored:
    """All slots of a bank, always at the same place in memory; slot 0 has no mix.

    values [n, M]: of each slot one C behind the other; sides [n, modules] int32: how large each is; starts likewise:
    where it begins.
    """

    values: Tensor
    sides: Tensor
    starts: Tensor


@dataclass(frozen=True)
class EqualMixes:
    """The mixes of one size of some rows of a pass: rows [m], and the C [m, c, c] of each module, or the one [1, c, c]
    that they share."""

    rows: Tensor
    matrices: Sequence[Tensor]

    def add(self, module: int, z: Tensor, into: Tensor) -> None:
        """Add C z to `into` [2, B, (T,) R], from z [B, (T,) R], where the rows' C has so many triplets."""
        C = self.matrices[module]
        own = z[self.rows, ..., : C.shape[1]]
        if len(C) == 1:
            mixed = own @ C[0].mT
        else:
            mixed = torch.bmm(C, own.unsqueeze(2)).squeeze(2) if own.dim() == 2 else torch.bmm(own, C.mT)
        into[..., : C.shape[1]].index_add_(1, self.rows, mixed.to(into.dtype).expand(2, *mixed.shape))


class MixBank:
    """Room for the mixes of `capacity` adapters, of size `largest` at most, over the linears of a base.

    It takes memory when the first one comes: `mix_bytes`, on a CPU as far as slots are used.
    """

    def __init__(self, basis: Basis, capacity: int, largest: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.largest = min(largest, max(span.rank for span in basis.spans)) if capacity else 0
        self.capacity = capacity if self.largest else 0
        self._spans = basis.spans
        self._device, self._dtype = device, dtype
        self._stored: Stored | None = None
        # Of each slot the size of its mix, on the host.
        self._sizes: dict[int, int] = {}
        self._equal: dict[tuple[int, ...], list[EqualMixes]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no mix has ever come: it has taken no memory."""
        return self._stored is None

    @property
    def stored(self) -> Stored:
        """All slots."""
        if self._stored is None:
            rows, modules = self.capacity + 1, len(self._spans)
            values = zeros(rows, mix_length(self._spans, self.largest), dtype=self._dtype, device=self._device)
            sides, starts = (torch.zeros(rows, modules, dtype=torch.int32, device=self._device) for _ in range(2))
            self._stored = Stored(values, sides, starts)
        return self._stored

    def place(self, row: AdapterRow) -> int:
        """Copy an adapter's mix in and return its slot. Raises OutOfSlots if there is no room."""
        slot = next((slot for slot in range(1, self.capacity + 1) if slot not in self._sizes), None)
        if slot is None:
            raise OutOfSlots(f"all {self.capacity} slots for mixes are in use")
        spans, length = mix_spans(self._spans, row.mix), mix_length(self._spans, row.mix)
        stored = self.stored
        with torch.inference_mode():
            stored.values[slot, :length].copy_(row.values[-length:])
            stored.sides[slot] = torch.tensor([span.size for span in spans], dtype=torch.int32)
            stored.starts[slot] = torch.tensor([span.start for span in spans], dtype=torch.int32)
        self._sizes[slot] = row.mix
        self._equal.clear()
        return slot

    def remove(self, slot: int) -> None:
        """Give a slot back; what lies in it stays until the next one comes."""
        del self._sizes[slot]
        self._equal.clear()

    def erase(self, slot: int) -> None:
        """Give a slot back and leave nothing in it."""
        with torch.inference_mode():
            for tensor in (self.stored.values, self.stored.sides, self.stored.starts):
                tensor[slot] = 0
        self.remove(slot)

    def row(self, slot: int) -> tuple[Tensor, int]:
        """The values [M] and the size of a slot's mix."""
        size = self._sizes[slot]
        return self.stored.values[slot, : mix_length(self._spans, size)], size

    def equal(self, slots: Sequence[int]) -> list[EqualMixes]:
        """The mixes of neighbouring rows with these slots, those of a size together; 0 has none.

        Where most rows have one of their own, they are copied once more, so that a step reads them in one piece: kept
        for the last few batches, until a slot changes.
        """
        key = tuple(slots)
        if not any(key):
            return []
        found = self._equal.pop(key, None)
        if found is None:
            sizes = sorted({self._sizes[slot] for slot in key if slot})
            found = [equal for size in sizes for equal in self._of_size(size, key)]
            if len(self._equal) >= _KEPT:
                del self._equal[next(iter(self._equal))]
        self._equal[key] = found
        return found

    def _of_size(self, size: int, slots: Sequence[int]) -> list[EqualMixes]:
        rows = [row for row, slot in enumerate(slots) if slot and self._sizes[slot] == size]
        own = {slots[row] for row in rows}
        if 2 * len(own) > len(rows) > 1:
            places = torch.tensor([slots[row] for row in rows], device=self._device)
            return [self._equal_mixes(size, rows, self.stored.values[places, : mix_length(self._spans, size)])]
        by_slot = {slot: [row for row in rows if slots[row] == slot] for slot in sorted(own)}
        return [self._equal_mixes(size, same, self.stored.values[slot : slot + 1]) for slot, same in by_slot.items()]

    def _equal_mixes(self, size: int, rows: Sequence[int], values: Tensor) -> EqualMixes:
        matrices = [values[:, span.values].view(-1, span.size, span.size) for span in mix_spans(self._spans, size)]
        return EqualMixes(torch.tensor(rows, device=self._device), matrices)


# Batches whose mixes are kept laid out: what decodes now, and the prompts that are read beside it.
_KEPT = 4
