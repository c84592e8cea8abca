"""The adapters of the live sequences, laid out by batch row.

Shapes: B rows, R a module's triplets, d_out its outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.inference.banks import Banks, Places
from osora_core.inference.mix_bank import EqualMixes
from osora_core.lazy_zeros import zeros


@dataclass(frozen=True)
class AdapterView:
    """The adapters of B neighbouring rows, as they broadcast against tokens [B, T, ...] of theirs, or [B, ...].

    rank: the largest among them, 0 where all are the bare base. For each module of the basis, `scales` has sigma above
    s0 + sigma [2, B, (1,) R], both of which multiply the same z, and `deltas` delta [B, (1,) d_out]. mixes: those of
    the rows that have one, by size; empty where none has.
    """

    rank: int
    scales: Sequence[Tensor]
    deltas: Sequence[Tensor]
    mixes: Sequence[EqualMixes]


class RowAdapters:
    """A copy of its adapter for every batch row, so that a step reads those of neighbouring rows and gathers nothing.

    The same vectors lie in `bank` once more, for whoever reads a bank: row b's in slot b + 1. Mixes stay in their bank,
    and are nowhere else for a row without one.
    """

    def __init__(self, basis: Basis, rows: int, device: torch.device, source: Banks) -> None:
        self.bank = Bank(basis, rows, device=device)
        self._source = source.adapters
        self._mixes = source.mixes
        self._mix_slots = [0] * rows
        spans = basis.spans

        places = torch.arange(basis.row_length, device=device)
        self._sigma = torch.cat([places[span.sigma] for span in spans])
        self._delta = torch.cat([places[span.delta] for span in spans])
        self._triplets = torch.cat([torch.arange(span.rank) for span in spans]).to(device)
        self._S = torch.cat([factors.S for factors in basis.factors.values()]).to(device)
        self._scales = zeros(2, rows, len(self._sigma), device=device)
        self._deltas = zeros(rows, len(self._delta), device=device)
        self._sizes = [span.rank for span in spans], [span.d_out for span in spans]
        self._rank = [0] * rows

    def fill(self, row: int, places: Places) -> None:
        """Give a row the adapter that lies there."""
        values, rank = self._source.values[places.slot], places.rank
        self.bank.write(row + 1, values, rank)
        sigma = values[self._sigma]
        self._scales[0, row] = sigma
        self._scales[1, row] = torch.where(self._triplets < rank, self._S + sigma, 0)
        self._deltas[row] = values[self._delta]
        self._rank[row] = rank
        self._set_mix(row, places.mix)

    def move(self, source: int, target: int) -> None:
        """Bring a row's adapter to another row."""
        self.bank.write(target + 1, self.bank.values[source + 1], self._rank[source])
        self._scales[:, target] = self._scales[:, source]
        self._deltas[target] = self._deltas[source]
        self._rank[target] = self._rank[source]
        self._set_mix(target, self._mix_slots[source])
        self._set_mix(source, 0)

    def leave(self, row: int) -> None:
        """The row's adapter has no mix any more: its slot may be another's soon."""
        self._set_mix(row, 0)

    def _set_mix(self, row: int, slot: int) -> None:
        self._mix_slots[row] = slot
        if slot:
            self.bank.mixes[row + 1], self.bank.mix_sizes[row + 1] = self._mixes.row(slot)
        else:
            self.bank.mixes.pop(row + 1, None)
            self.bank.mix_sizes.pop(row + 1, None)

    def view(self, start: int, rows: int, *, single: bool) -> AdapterView:
        """The adapters of `rows` rows from `start` on, of which each has a `single` token or several."""
        own = slice(start, start + rows)
        triplets, outputs = self._sizes
        rank, scales, deltas = self.rank(start, rows), self._scales[:, own], self._deltas[own]
        if not single:
            scales, deltas = scales.unsqueeze(2), deltas.unsqueeze(1)
        mixes = self._mixes.equal(self._mix_slots[own])
        return AdapterView(rank, torch.split(scales, triplets, dim=-1), torch.split(deltas, outputs, dim=-1), mixes)

    def rank(self, start: int, rows: int) -> int:
        """The largest rank among `rows` rows from `start` on; 0 if all of them are the bare base."""
        return max(self._rank[start : start + rows])
