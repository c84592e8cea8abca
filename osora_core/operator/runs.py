"""Batches whose rows are grouped by slot: what the merged and the batched execution need to know of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """Neighbouring rows that share a slot: [start, stop)."""

    slot: int
    start: int
    stop: int


class EqualRuns(NamedTuple):
    """Neighbouring runs [first, last) with equally many rows each; rows [start, stop) in all."""

    first: int
    last: int
    start: int
    stop: int


def runs(slots: Sequence[int]) -> tuple[Run, ...]:
    """The runs of a batch whose rows have these slots; equal slots must be neighbours."""
    found: list[Run] = []
    for row, slot in enumerate(slots):
        if found and found[-1].slot == slot:
            found[-1] = Run(slot, found[-1].start, row + 1)
        else:
            found.append(Run(slot, row, row + 1))
    return tuple(found)


def equal_runs(runs: Sequence[Run]) -> tuple[EqualRuns, ...]:
    """The runs of a batch by their number of rows: few where runs with equally many rows are neighbours."""
    found: list[EqualRuns] = []
    for index, (_, start, stop) in enumerate(runs):
        if found:
            first, last, begin, end = found[-1]
            if (stop - start) * (last - first) == end - begin:
                found[-1] = EqualRuns(first, index + 1, begin, stop)
                continue
        found.append(EqualRuns(index, index + 1, start, stop))
    return tuple(found)


@dataclass(frozen=True)
class SlotRuns:
    """The runs of one batch: on the host, as their slots [runs] on the device, and by their number of rows."""

    runs: tuple[Run, ...]
    slots: Tensor
    equal: tuple[EqualRuns, ...]

    @classmethod
    def of(cls, runs: tuple[Run, ...], device: torch.device) -> "SlotRuns":
        return cls(runs, torch.tensor([run.slot for run in runs], device=device), equal_runs(runs))
