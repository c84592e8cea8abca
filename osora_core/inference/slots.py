"""Which adapter lies in which slot of the serving bank."""

from collections import OrderedDict

from osora_core.bank import Bank
from osora_core.errors import CorruptArtifact, OutOfSlots
from osora_core.inference.request import AdapterRow


class AdapterSlots:
    """Reference-counted slots. One that nobody uses stays until its slot is needed, the longest unused goes first."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self._slots: dict[str, int] = {}
        self._references: dict[str, int] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()

    def acquire(self, adapter: AdapterRow | None) -> int:
        """The slot of an adapter, copied in if it is cold.

        Raises OutOfSlots while every slot is referenced, CorruptArtifact for an adapter that does not fit the bank.
        """
        if adapter is None:
            return 0
        key = adapter.key
        if key not in self._slots:
            self._slots[key] = self._place(adapter)
        self._idle.pop(key, None)
        self._references[key] = self._references.get(key, 0) + 1
        return self._slots[key]

    def release(self, adapter: AdapterRow | None) -> None:
        """One reference less; at zero the adapter may be evicted."""
        if adapter is None:
            return
        self._references[adapter.key] -= 1
        if self._references[adapter.key] == 0:
            del self._references[adapter.key]
            self._idle[adapter.key] = None

    def _place(self, adapter: AdapterRow) -> int:
        if adapter.values.shape != self.bank.values.shape[1:]:
            raise CorruptArtifact(
                f"{adapter.key} has {adapter.values.numel()} values, this basis needs {self.bank.values.shape[1]}"
            )
        try:
            slot = self.bank.acquire()
        except OutOfSlots:
            if not self._idle:
                raise
            evicted, _ = self._idle.popitem(last=False)
            slot = self._slots.pop(evicted)
        self.bank.write(slot, adapter.values, adapter.rank)
        return slot

    @property
    def resident(self) -> int:
        """How many adapters lie in the bank."""
        return len(self._slots)
