"""The layer that applies the operator to a frozen linear, and the context that says which rows have which adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from osora_core.bank import Bank
from osora_core.basis import Factors
from osora_core.operator import Run, SlotRuns, osora_linear


@dataclass(frozen=True)
class Selection:
    """Which slot of a bank each batch row uses: slots [B], or [B, T] for one a token; grouped: the rows' runs by slot,
    where they are grouped by it."""

    bank: Bank
    slots: Tensor
    grouped: SlotRuns | None


_selection: ContextVar[Selection | None] = ContextVar("osora_selection", default=None)


@contextmanager
def use_slots(bank: Bank, slots: Tensor, runs: tuple[Run, ...] | None = None) -> Iterator[None]:
    """Run the model with these slots of a bank. Outside this context every OsoraLinear is its bare base.

    A caller whose rows are grouped by slot may say so with `runs` (host integers): layers may then choose the merged
    or the batched execution.
    """
    grouped = None if runs is None else SlotRuns.of(runs, slots.device)
    token = _selection.set(Selection(bank, slots, grouped))
    try:
        yield
    finally:
        _selection.reset(token)


class LowRank(Protocol):
    """Plain LoRAs of some of a pass's tokens, whose A and B are their own."""

    def add(self, index: int, x: Tensor, y: Tensor) -> Tensor:
        """y [..., d_out] of the module with this index in the basis, plus each token's B A x for x [..., d_in]."""


_low_rank: ContextVar[LowRank | None] = ContextVar("osora_low_rank", default=None)


@contextmanager
def use_loras(loras: LowRank | None) -> Iterator[None]:
    """Run the model with these LoRAs beside what slots say; None: there are none."""
    token = _low_rank.set(loras)
    try:
        yield
    finally:
        _low_rank.reset(token)


def add_loras(index: int, x: Tensor, y: Tensor) -> Tensor:
    """y, or y plus what the LoRAs in use add to it."""
    loras = _low_rank.get()
    return y if loras is None else loras.add(index, x, y)


class OsoraLinear(nn.Module):
    """A frozen linear and its basis; the adapters live in the bank that `use_slots` names."""

    U: Tensor
    S: Tensor
    Vt: Tensor

    def __init__(self, base: nn.Module, factors: Factors, index: int) -> None:
        super().__init__()
        self.base = base
        self.index = index
        self.register_buffer("U", factors.U, persistent=False)
        self.register_buffer("S", factors.S, persistent=False)
        self.register_buffer("Vt", factors.Vt, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        selection = _selection.get()
        if selection is None:
            bare: Tensor = self.base(x)
            return add_loras(self.index, x, bare)
        sigma, delta = selection.bank.layers[self.index]
        ranks = selection.bank.ranks
        y = osora_linear(x, self.base, self.U, self.S, self.Vt, sigma, delta, selection.slots, ranks, selection.grouped)
        return add_loras(self.index, x, y)
