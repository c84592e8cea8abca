"""Plain LoRAs beside the shared basis: the A and B of many as columns of two matrices a module.

Each LoRA has as many columns as its largest rank, anywhere. A pass multiplies with all columns in use at once and takes
out, for each token, those that are not its own LoRA's: two products a module, however many LoRAs a batch mixes, and of
the same shape whoever comes and goes.

Shapes: C columns, N tokens or [B, T] of them, d_in and d_out a module's sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.basis import Basis
from osora_core.errors import OutOfSlots
from osora_core.inference.request import LoraRow
from osora_core.lazy_zeros import zeros

# The owner of a free column. No token's slot is this one.
_FREE = -1


@dataclass(frozen=True)
class Columns:
    """A [C, d_in] and B^T [C, d_out] of each module (None where no LoRA adapts it), and whose each column is [C]."""

    A: Sequence[Tensor | None]
    Bt: Sequence[Tensor | None]
    owners: Tensor


@dataclass(frozen=True)
class PassLoras:
    """The LoRAs of one pass's tokens: `foreign` [N, C] says which columns are not a token's own."""

    columns: Columns
    foreign: Tensor

    @classmethod
    def of(cls, columns: Columns, slots: Tensor) -> "PassLoras":
        """Of tokens with these LoRA slots, [N] or [B, T]; 0: none."""
        return cls(columns, columns.owners != slots.unsqueeze(-1))

    def add(self, index: int, x: Tensor, y: Tensor) -> Tensor:
        """See `osora_core.linear.LowRank`."""
        A, Bt = self.columns.A[index], self.columns.Bt[index]
        if A is None or Bt is None:
            return y
        # Filled, not multiplied by zero, which what is not finite in somebody else's column would survive.
        z = F.linear(x, A).masked_fill_(self.foreign, 0)
        return torch.addmm(y, z, Bt) if y.dim() == 2 else y + z @ Bt


def bank_bytes(basis: Basis, capacity: int) -> int:
    """What a bank for so many ranks takes, in the basis's dtype."""
    return capacity * sum(map(sum, _sizes(basis))) * basis.dtype.itemsize


def _sizes(basis: Basis) -> list[tuple[int, int]]:
    """d_in and d_out of each module."""
    return [(factors.Vt.shape[1], factors.U.shape[0]) for factors in basis.factors.values()]


class LoraBank:
    """Room for LoRAs whose ranks sum up to `capacity`, over the linears of a base.

    It takes memory when the first LoRA comes: `bank_bytes`, on a CPU as far as columns are used.
    """

    def __init__(self, basis: Basis, capacity: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.capacity = capacity
        self._sizes = _sizes(basis)
        self._device, self._dtype = device, dtype
        self._all: Columns | None = None
        # Whose each column is, on the host.
        self._owners = [_FREE] * capacity
        self._rows: dict[int, LoraRow] = {}
        self._compact: tuple[frozenset[int], Columns] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no LoRA has ever come: it has taken no memory."""
        return self._all is None

    @property
    def ranks_in_use(self) -> int:
        """Of the LoRAs in the bank. For any thread."""
        return self.capacity - self._owners.count(_FREE)

    @property
    def columns(self) -> Columns:
        """All columns, always at the same place in memory."""
        if self._all is None:
            A, Bt = (
                [zeros(self.capacity, sizes[side], dtype=self._dtype, device=self._device) for sizes in self._sizes]
                for side in (0, 1)
            )
            self._all = Columns(A, Bt, torch.full((self.capacity,), _FREE, dtype=torch.int32, device=self._device))
        return self._all

    def of(self, slots: Sequence[int]) -> Columns:
        """The columns of these LoRAs alone: what a pass takes that need not find them where they were."""
        wanted = frozenset(slots) - {0}
        if self._compact is None or self._compact[0] != wanted:
            own = torch.tensor([c for c, owner in enumerate(self._owners) if owner in wanted], device=self._device)
            adapted = {index for slot in wanted for index in self._rows[slot].factors}

            def picked(side: Sequence[Tensor | None]) -> list[Tensor | None]:
                return [
                    None if tensor is None or index not in adapted else tensor[own] for index, tensor in enumerate(side)
                ]

            every = self.columns
            self._compact = wanted, Columns(picked(every.A), picked(every.Bt), every.owners[own])
        return self._compact[1]

    def place(self, row: LoraRow) -> int:
        """Copy a LoRA in and return its slot. Raises OutOfSlots if there is no room."""
        free = [column for column, owner in enumerate(self._owners) if owner == _FREE]
        if len(free) < row.rank:
            raise OutOfSlots(f"{self.capacity - len(free)} of the {self.capacity} ranks for LoRAs are in use")
        slot = next(slot for slot in range(1, self.capacity + 1) if slot not in self._rows)
        own = torch.tensor(free[: row.rank], device=self._device)
        every = self.columns
        with torch.inference_mode():
            for index, (A, Bt) in enumerate(zip(every.A, every.Bt, strict=True)):
                assert A is not None
                assert Bt is not None
                own_A, own_B = row.factors.get(index, (A[:0], Bt[:0].T))
                # What the last owner of a column left behind is overwritten too.
                for side, part in ((A, own_A), (Bt, own_B.T)):
                    if len(part) < row.rank:
                        side[own[len(part) :]] = 0
                    if len(part):
                        side[own[: len(part)]] = part.to(self._device, self._dtype)
            every.owners[own] = slot
        for column in free[: row.rank]:
            self._owners[column] = slot
        self._rows[slot] = row
        self._compact = None
        return slot

    def erase(self, slot: int) -> None:
        """Give a LoRA's columns back and leave nothing in them, where `remove` leaves that to the next LoRA."""
        own = torch.tensor([c for c, owner in enumerate(self._owners) if owner == slot], device=self._device)
        with torch.inference_mode():
            for side in (*self.columns.A, *self.columns.Bt):
                assert side is not None
                side[own] = 0
        self.remove(slot)

    def remove(self, slot: int) -> None:
        """Give a LoRA's columns back."""
        self._owners = [_FREE if owner == slot else owner for owner in self._owners]
        self.columns.owners.masked_fill_(self.columns.owners == slot, _FREE)
        del self._rows[slot]
        self._compact = None
