"""The mixes of a batch: which C each row's z goes through. Shapes: see the package; c the size of a C, m how many."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from osora_core.operator.runs import SlotRuns


class Piece(NamedTuple):
    """Rows [start, stop) of a batch as blocks of equally many tokens, the i-th of which has the C at places[i].
    repeats: whether several blocks may have the same."""

    start: int
    stop: int
    places: Tensor
    repeats: bool

    def blocks(self, values: Tensor, c: int, dtype: torch.dtype) -> Tensor:
        """The first c of values [..., k] of these rows, as blocks [count, tokens, c]."""
        return values[self.start : self.stop, ..., :c].reshape(len(self.places), -1, c).to(dtype)


class Mixes(NamedTuple):
    """The mixes of one size in a batch, on one layer: C [m + 1, c, c], of which the first is zero.

    pieces: the rows with a mix, and perhaps others, which have the zero; of_slot: the place of a slot's C, of those
    with one; runs, of_runs: where rows are grouped, which of their runs have a mix, and which C.
    """

    C: Tensor
    pieces: Sequence[Piece]
    of_slot: dict[int, int]
    runs: Tensor
    of_runs: Tensor

    @property
    def size(self) -> int:
        return self.C.shape[-1]

    def add(self, z: Tensor, *sums: Tensor, transposed: bool = False) -> None:
        """Add C z, or C^T z, to each of `sums`, in place; all [..., R], of whose R values the first c count."""
        C = self.C if transposed else self.C.mT
        for piece in self.pieces:
            mixed = torch.bmm(piece.blocks(z, self.size, C.dtype), C[piece.places])
            for total in sums:
                own = total[piece.start : piece.stop, ..., : self.size]
                own += mixed.view(own.shape).to(own.dtype)

    def gradient(self, a: Tensor, z: Tensor) -> Tensor:
        """The gradient [m + 1, c, c] of C, where that of C z is `a`; of the zero it is nothing that counts."""
        grad = torch.zeros_like(self.C, memory_format=torch.contiguous_format)
        for piece in self.pieces:
            as_, zs = (piece.blocks(t, self.size, grad.dtype) for t in (a, z))
            own = torch.bmm(as_.mT, zs)
            if piece.repeats:
                grad += sum_by_slot(own.flatten(1), piece.places, grad.flatten(1)).view_as(grad)
            else:
                grad[piece.places] += own
        return grad


def _pieces(slots: Tensor, place_of_slot: Tensor, grouped: SlotRuns | None, mixed: dict[int, int]) -> list[Piece]:
    """The pieces of a batch with these slots; place_of_slot [n]: 0 where a slot has no C of this size."""
    if grouped is None:
        return [Piece(0, len(slots), place_of_slot[slots].flatten(), repeats=True)]
    places = place_of_slot[grouped.slots]
    return [
        Piece(start, stop, places[first:last], repeats=False)
        for first, last, start, stop in grouped.equal
        if any(run.slot in mixed for run in grouped.runs[first:last])
    ]


def sum_by_slot(values: Tensor, slots: Tensor, like: Tensor) -> Tensor:
    """Segment sum: values [..., k] added into the row of `like` [n, k] that each token's slot names.

    A product with the 0/1 membership matrix: exact, in one order on every device (index_add is neither on a GPU).
    What is not finite makes its own slot's sum nan and touches no other's, though 0 * nan is nan.
    """
    if values.dim() == 3 and slots.dim() == 1:
        values = values.sum(dim=1)
    members = (torch.arange(like.shape[0], device=slots.device).unsqueeze(1) == slots.reshape(1, -1)).to(like.dtype)
    values = values.reshape(-1, like.shape[1]).to(like.dtype)
    broken = ~values.isfinite()
    hit = members @ broken.any(dim=1, keepdim=True).to(like.dtype)
    return (members @ values.masked_fill(broken, 0)).masked_fill(hit > 0, torch.nan)


def of_layers(
    layers: Sequence[Tensor], mixed: dict[int, int], slots: Tensor, rows: int, grouped: SlotRuns | None = None
) -> list[Mixes]:
    """The mixes of a batch with these slots [B] or [B, T] on each layer, of which C [m + 1, c, c] are given; mixed: the
    place there of each slot that has one; rows: how many slots there are, taken or not."""
    device = slots.device
    place_of_slot = torch.tensor([mixed.get(slot, 0) for slot in range(rows)], device=device)
    pieces = _pieces(slots, place_of_slot, grouped, mixed)
    having = [] if grouped is None else [i for i, run in enumerate(grouped.runs) if run.slot in mixed]
    runs = torch.tensor(having, dtype=torch.long, device=device)
    of_runs = torch.tensor([0] * len(having), device=device) if grouped is None else place_of_slot[grouped.slots][runs]
    return [Mixes(C, pieces, mixed, runs, of_runs) for C in layers]
