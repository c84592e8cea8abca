"""The layer that applies the operator to a frozen linear, and the context that says which rows have which adapter."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from osora_core.bank import Bank
from osora_core.basis import Factors
from osora_core.mix import mix_spans
from osora_core.operator import Mixes, Run, SlotRuns, of_layers, osora_linear


@dataclass(frozen=True)
class Selection:
    """Which slot of a bank each batch row uses: slots [B], or [B, T] for one a token; grouped: the rows' runs by slot,
    where they are grouped by it; mixes: of each layer those of its rows, none where no row has one."""

    bank: Bank
    slots: Tensor
    grouped: SlotRuns | None
    mixes: Sequence[Sequence[Mixes]]


_selection: ContextVar[Selection | None] = ContextVar("osora_selection", default=None)


@contextmanager
def use_slots(bank: Bank, slots: Tensor, runs: tuple[Run, ...] | None = None) -> Iterator[None]:
    """Run the model with these slots of a bank. Outside this context every OsoraLinear is its bare base.

    A caller whose rows are grouped by slot may say so with `runs` (host integers): layers may then choose the merged
    or the batched execution.
    """
    grouped = None if runs is None else SlotRuns.of(runs, slots.device)
    token = _selection.set(Selection(bank, slots, grouped, _mixes(bank, slots, grouped) if bank.mixes else ()))
    try:
        yield
    finally:
        _selection.reset(token)


def _mixes(bank: Bank, slots: Tensor, grouped: SlotRuns | None) -> Sequence[Sequence[Mixes]]:
    """Those of each layer: one for each size. Their gradients reach the bank's."""
    present = bank.mixes.keys() if grouped is None else {run.slot for run in grouped.runs} & bank.mixes.keys()
    by_size: dict[int, list[int]] = defaultdict(list)
    for slot in sorted(present):
        by_size[bank.mix_sizes[slot]].append(slot)
    found = []
    for size, own in by_size.items():
        values = torch.stack([torch.zeros_like(bank.mixes[own[0]]), *(bank.mixes[slot] for slot in own)])
        spans = mix_spans(bank.basis.spans, size)
        layers = torch.split(values, [span.size**2 for span in spans], dim=1)
        square = [part.view(-1, span.size, span.size) for part, span in zip(layers, spans, strict=True)]
        found.append(of_layers(square, {slot: i for i, slot in enumerate(own, start=1)}, slots, bank.rows, grouped))
    return list(zip(*found, strict=True))


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
        mixes = selection.mixes[self.index] if selection.mixes else ()
        y = osora_linear(
            x, self.base, self.U, self.S, self.Vt, sigma, delta, selection.slots, ranks, selection.grouped, mixes
        )
        return add_loras(self.index, x, y)
