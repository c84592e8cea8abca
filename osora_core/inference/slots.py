"""Which adapter lies in which slot of the serving banks."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch

from osora_core.bank import Bank
from osora_core.errors import CorruptArtifact, OutOfSlots, UserError
from osora_core.inference.banks import Places
from osora_core.inference.lora_bank import LoraBank
from osora_core.inference.mix_bank import MixBank
from osora_core.inference.request import AdapterRow, LoraRow
from osora_core.mix import mix_length

LORA_RANKS = 256
"""Of all LoRAs at once: sixteen of rank 16."""
LARGEST_MIX, MIXES = 128, 32
"""The size of a mix, and how many lie in the bank at once."""

Row = TypeVar("Row", AdapterRow, LoraRow)


class _Slots(ABC, Generic[Row]):
    """Reference-counted slots. One that nobody uses stays until its room is needed, the longest unused goes first."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._references: dict[str, int] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._unwanted: set[str] = set()

    def acquire(self, adapter: Row) -> int:
        """The slot of an adapter, copied in if it is cold.

        Raises OutOfSlots while all room is referenced, and what `_place` raises.
        """
        key = adapter.key
        if key not in self._slots:
            self._slots[key] = self._place(adapter)
        self._idle.pop(key, None)
        self._references[key] = self._references.get(key, 0) + 1
        return self._slots[key]

    def release(self, adapter: Row) -> None:
        """One reference less; at zero the adapter may be evicted."""
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
        # Its mix has a bank of its own.
        self.bank.write(slot, adapter.values[: self.bank.values.shape[1]], adapter.rank)
        return slot

    def _erase(self, slot: int) -> None:
        self.bank.release(slot)


class MixSlots(_Slots[AdapterRow]):
    """Of the mixes of adapters that have one. Raises UserError for one that has no room even alone."""

    def __init__(self, bank: MixBank) -> None:
        super().__init__()
        self.bank = bank

    def fits(self, adapters: Iterable[AdapterRow]) -> bool:
        """Whether the mixes of all of these can be in the bank at once. One that never has room is no reason to
        wait."""
        keys = {adapter.key for adapter in adapters if 0 < adapter.mix <= self.bank.largest}
        return len(keys) <= self.bank.capacity

    def _place(self, adapter: AdapterRow) -> int:
        check_mix(adapter.mix, self.bank.largest)
        try:
            return self.bank.place(adapter)
        except OutOfSlots:
            evicted = self._evict()
            if evicted is None:
                raise
            self.bank.remove(evicted)
            return self.bank.place(adapter)

    def _erase(self, slot: int) -> None:
        self.bank.erase(slot)


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


class AllSlots:
    """The slots of adapters of the basis, of plain LoRAs and of mixes: what one adapter takes of them."""

    def __init__(self, adapters: AdapterSlots, loras: LoraSlots, mixes: MixSlots) -> None:
        self._adapters, self._loras, self._mixes = adapters, loras, mixes

    def acquire(self, adapter: AdapterRow | LoraRow | None) -> Places:
        """Where it lies, copied in if it is cold. Raises what the slots raise, and has then taken none."""
        if isinstance(adapter, LoraRow):
            return Places(lora=self._loras.acquire(adapter))
        if adapter is None:
            return Places()
        slot = self._adapters.acquire(adapter)
        try:
            return Places(slot, adapter.rank, mix=self._mixes.acquire(adapter) if adapter.mix else 0)
        except Exception:
            self._adapters.release(adapter)
            raise

    def release(self, adapter: AdapterRow | LoraRow | None) -> None:
        """One reference less; at zero the adapter may be evicted."""
        if isinstance(adapter, LoraRow):
            self._loras.release(adapter)
        elif adapter is not None:
            self._adapters.release(adapter)
            if adapter.mix:
                self._mixes.release(adapter)

    def drop(self, is_unwanted: Callable[[str], bool]) -> None:
        """Erase the adapters with such keys: at once, or when the last request that uses one has ended."""
        for slots in (self._adapters, self._loras, self._mixes):
            slots.drop(is_unwanted)

    @property
    def keys(self) -> set[str]:
        """Of the adapters in the banks. For any thread."""
        return {*self._adapters.keys, *self._loras.keys, *self._mixes.keys}


def check_mix(size: int, largest: int) -> None:
    """Raise UserError unless a bank of mixes of size `largest` has room for one of this size."""
    if size > largest:
        raise UserError(
            f"the adapter's mix is {size}; this server has room for mixes of {largest} at most",
            next_action="raise OSORA_INFERENCE_MIX, or train with a smaller osora.mix",
        )


def check_rank(rank: int, capacity: int) -> None:
    """Raise UserError unless a LoRA of this rank has room in a bank of this capacity."""
    if rank > capacity:
        raise UserError(
            f"the LoRA's rank is {rank}; this server has room for ranks of {capacity} in all",
            next_action="raise OSORA_INFERENCE_LORA_RANKS, or train a LoRA of a smaller rank",
        )
