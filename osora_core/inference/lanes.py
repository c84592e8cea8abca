"""The adapters of the live sequences, laid out by pool row, and what each linear adds for them.

Shapes: B rows, T tokens a row, R the basis rank, d_in and d_out a weight's sizes, C pool rows.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.linear import OsoraLinear


class Lanes:
    """Pool row b runs with slot b + 1 of `bank`, a bank as large as the pool: whatever else is loaded, a step reads
    the rows that it needs, side by side, and gathers nothing."""

    def __init__(self, basis: Basis, rows: int, device: torch.device) -> None:
        self.bank = Bank(basis, rows, device=device)
        spans = basis.spans
        columns = torch.cat([torch.arange(span.start, span.start + span.rank) for span in spans]).to(device)
        self._columns = columns
        self._triplets = torch.cat([torch.arange(span.rank) for span in spans]).to(device)
        self._S = torch.cat([factors.S for factors in basis.factors.values()]).to(device)
        # sigma and s = s0 + sigma of every module, one above the other [2, C, sum of R]: both multiply the same z.
        self._scales = torch.zeros(2, rows, columns.shape[0], device=device)
        ends = torch.tensor([span.rank for span in spans]).cumsum(0).tolist()
        self._starts = [0, *ends[:-1]]
        self._rank = [0] * rows

    def fill(self, row: int, source: Bank, slot: int, rank: int) -> None:
        """Give a pool row the adapter in a slot of `source`; slot 0 is the bare base."""
        values = source.values[slot]
        self.bank.write(row + 1, values, rank)
        sigma = values[self._columns]
        self._scales[0, row] = sigma
        self._scales[1, row] = torch.where(self._triplets < rank, self._S + sigma, 0)
        self._rank[row] = rank

    def move(self, source: int, target: int) -> None:
        """Bring a row's adapter to another row."""
        self.bank.write(target + 1, self.bank.values[source + 1], self._rank[source])
        self._scales[:, target] = self._scales[:, source]
        self._rank[target] = self._rank[source]

    def rank(self, start: int, rows: int) -> int:
        """The largest rank among `rows` rows from `start` on; 0 if all of them are the bare base."""
        return max(self._rank[start : start + rows])

    def linear(self, layer: OsoraLinear, x: Tensor, start: int, rank: int) -> Tensor:
        """What `layer` makes of x [B, T, d_in], the tokens of B rows from `start` on, using `rank` triplets.

        The update of `osora_core.operator`, its two products with U as one: both have the same right-hand side.
        """
        y: Tensor = layer.base(x)
        if rank == 0:
            return y
        window, rank = slice(start, start + x.shape[0]), min(rank, layer.S.shape[0])
        column = self._starts[layer.index]
        z = F.linear(x, layer.Vt[:rank])
        scaled = (z * self._scales[:, window, None, column : column + rank]).to(x.dtype)
        inner, outer = F.linear(scaled, layer.U[:, :rank])
        delta = self.bank.layers[layer.index][1][1:][window].unsqueeze(1)
        return torch.addcmul(y + inner, delta.to(x.dtype), outer)
