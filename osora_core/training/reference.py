"""What a job is compared with, if its method compares: the base, or the adapter that it begins with."""

from collections.abc import Sequence

from torch import Tensor

from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.data import Row, sequences
from osora_core.training.passes import Passes


class Reference:
    """A slot of the bank that no step changes, and its losses on rows that come again.

    Whoever trains against it holds it: a job, or a sweep with all its members. With the last of them it goes.
    """

    def __init__(self) -> None:
        self.slot = 0
        """0, the bare base, unless it is held and a copy of an adapter."""
        self._holders = 0
        self._known: list[tuple[Sequence[Row], Tensor]] = []

    def hold(self, bank: Bank, start: Adapter | None) -> None:
        """The first to hold it writes `start`, if there is one, into a slot. Raises OutOfSlots if none is free."""
        if self._holders == 0 and start is not None:
            self.slot = bank.acquire()
            bank.write(self.slot, start.to_row(bank.basis), start.rank, start.mix_size)
        self._holders += 1

    def let_go(self, bank: Bank) -> None:
        """Undo one `hold`."""
        self._holders -= 1
        if self._holders > 0:
            return
        self._known.clear()
        if self.slot:
            bank.release(self.slot)
            self.slot = 0

    def losses(self, rows: Sequence[Row], passes: Passes) -> Tensor:
        """The summed loss of each of `sequences(rows)`, float64 on the CPU, computed once for this very list of rows.

        In passes of its own: the numbers are the same whoever asks for them, and after a restart.
        """
        for known, losses in self._known:
            if known is rows:
                return losses
        asked = sequences(rows)
        losses = passes.scores([(row, index) for index, row in enumerate(asked)], [self.slot] * len(asked)).losses
        self._known.append((rows, losses))
        return losses
