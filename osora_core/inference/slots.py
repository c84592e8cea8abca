"""Which adapter lies in which slot of the serving banks."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch

from osora_core.bank import Bank
from osora_core.errors import CorruptArtifact, OutOfSlots, UserError
from osora_core.inference.lora_bank import LoraBank
from osora_core.inference.request import AdapterRow, LoraRow
from osora_core.mix import mix_length

LORA_RANKS = 256
"""Of all LoRAs at once: sixteen of rank 16."""

Row = TypeVar("Row", AdapterRow, LoraRow)


class _Slots(ABC, Generic[Row]):
    """Reference-counted slots. One that nobody uses stays until its room is needed, the longest unused goes first."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._references: dict[str, int] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._unwanted: set[str] = set()

    def acquire(self, adapter: Row | None) -> int:
        """The slot of an adapter, copied in if it is cold; 0 for none.

        Raises OutOfSlots while all room is referenced, and what `_place` raises.
        """
        if adapter is None:
            return 0
        key = adapter.key
        if key not in self._slots:
            self._slots[key] = self._place(adapter)
        self._idle.pop(key, None)
        self._references[key] = self._references.get(key, 0) + 1
        return self._slots[key]

    def release(self, adapter: Row | None) -> None:
        """One reference less; at zero the adapter may be evicted."""
        if adapter is None:
            return
        self._references[adapter.key] -= 1
        if self._references[adapter.key] == 0:
            del self._references[adapter.key]
            if adapter.key in self._unwanted:
                self._unwanted.remove(adapter.key)
                self._erase(self._slots.pop(adapter.key))
            else:
                self._idle[adapter.key] = None

    @torch.inference_mode()
    def drop(self, is_unwanted: Callable[[str], bool]) -> None:
        """Erase the adapters with such keys: at once, or when the last request that uses one has ended."""
        for key in [key for key in self._slots if is_unwanted(key)]:
            if key in self._idle:
                del self._idle[key]
                self._erase(self._slots.pop(key))
            else:
                self._unwanted.add(key)

    def _evict(self) -> int | None:
        """The slot of the longest unused, which it loses; None if all are in use."""
        if not self._idle:
            return None
        evicted, _ = self._idle.popitem(last=False)
        return self._slots.pop(evicted)

    @abstractmethod
    def _place(self, adapter: Row) -> int:
        """Copy a cold adapter in and return its slot."""

    @abstractmethod
    def _erase(self, slot: int) -> None:
        """Overwrite a slot that nobody uses, and give it back."""

    @property
    def keys(self) -> list[str]:
        """Of the adapters in the bank. For any thread."""
        return list(self._slots)

    @property
    def resident(self) -> int:
        """How many adapters lie in the bank."""
        return len(self._slots)


class AdapterSlots(_Slots[AdapterRow]):
    """Of adapters of the shared basis. Raises CorruptArtifact for one that does not fit the bank."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank

    def _place(self, adapter: AdapterRow) -> int:
        needed = self.bank.values.shape[1]
        if adapter.mix:
            needed += mix_length(self.bank.basis.spans, adapter.mix)
        if adapter.values.shape != (needed,):
            raise CorruptArtifact(f"{adapter.key} has {adapter.values.numel()} values, this basis needs {needed}")
        try:
            slot = self.bank.acquire()
        except OutOfSlots:
            evicted = self._evict()
            if evicted is None:
                raise
            slot = evicted
        self.bank.write(slot, adapter.values, adapter.rank, adapter.mix)
        return slot

    def _erase(self, slot: int) -> None:
        self.bank.release(slot)


class LoraSlots(_Slots[LoraRow]):
    """Of plain LoRAs. Raises UserError for one that has no room even alone."""

    def __init__(self, bank: LoraBank) -> None:
        super().__init__()
        self.bank = bank

    def fits(self, loras: Iterable[LoraRow]) -> bool:
        """Whether all of these can be in the bank at once. One that never has room is no reason to wait."""
        ranks = {lora.key: lora.rank for lora in loras if lora.rank <= self.bank.capacity}
        return sum(ranks.values()) <= self.bank.capacity

    def _place(self, adapter: LoraRow) -> int:
        check_rank(adapter.rank, self.bank.capacity)
        while True:
            try:
                return self.bank.place(adapter)
            except OutOfSlots:
                evicted = self._evict()
                if evicted is None:
                    raise
                self.bank.remove(evicted)

    def _erase(self, slot: int) -> None:
        self.bank.erase(slot)


def check_rank(rank: int, capacity: int) -> None:
    """Raise UserError unless a LoRA of this rank has room in a bank of this capacity."""
    if rank > capacity:
        raise UserError(
            f"the LoRA's rank is {rank}; this server has room for ranks of {capacity} in all",
            next_action="raise OSORA_INFERENCE_LORA_RANKS, or train a LoRA of a smaller rank",
        )
