"""The bank: the vectors of many adapters as one matrix, the same object in training and in serving."""

import torch
from torch import Tensor, nn

from osora_core.basis import Basis
from osora_core.errors import OutOfSlots
from osora_core.lazy_zeros import zeros


class Bank:
    """`capacity` slots over one basis. Slot 0 is zero for ever: the bare base.

    values [n, P] (float32 unless a `dtype` is given) holds every module's sigma and delta side by side
    (P = basis.row_length), so that loading an adapter is one row copy and an optimizer step one vector operation.
    `layers[i]` are the (sigma [n, R_i], delta [n, d_out_i]) views that the i-th module reads; in a trainable bank they
    are parameters, and `take_grads` collects what they gathered. ranks [n]: how many leading triplets each slot uses.
    """

    def __init__(
        self, basis: Basis, capacity: int, *, device: torch.device, trainable: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        rows = capacity + 1
        self.basis = basis
        self.values = zeros(rows, basis.row_length, dtype=dtype, device=device)
        self.ranks = torch.zeros(rows, dtype=torch.long, device=device)
        self._views = [self.values[:, columns] for span in basis.spans for columns in (span.sigma, span.delta)]
        if trainable:
            # Leaves that share the matrix's memory: a write to a row is seen by the next forward.
            self._views = [nn.Parameter(view) for view in self._views]
        self.layers = list(zip(self._views[::2], self._views[1::2], strict=True))
        self._free = list(range(capacity, 0, -1))

    def take_grads(self) -> Tensor:
        """The gradients [n, P] that backward passes left since the last call; the next ones start from nothing."""
        grads = torch.cat([torch.zeros_like(v) if v.grad is None else v.grad for v in self._views], dim=1)
        for view in self._views:
            view.grad = None
        return grads

    def put_grads(self, grads: Tensor) -> None:
        """Replace what backward passes left by these gradients [n, P]; later passes add to them."""
        columns = torch.split(grads, [view.shape[1] for view in self._views], dim=1)
        for view, part in zip(self._views, columns, strict=True):
            view.grad = part.contiguous()  # as those are to which a backward pass adds

    @property
    def capacity(self) -> int:
        return self.values.shape[0] - 1

    @property
    def free(self) -> int:
        """How many slots can be acquired."""
        return len(self._free)

    def acquire(self) -> int:
        """A free slot, zeroed. Raises OutOfSlots if there is none."""
        if not self._free:
            raise OutOfSlots(f"all {self.capacity} slots of the bank are in use")
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give a slot back and make it the bare base again."""
        self.write(slot, torch.zeros(self.values.shape[1]), rank=0)
        self._free.append(slot)

    def write(self, slot: int, row: Tensor, rank: int) -> None:
        """Set a slot's vectors (row [P]) and rank, in place: captured graphs and views stay valid."""
        if slot == 0:
            raise ValueError("slot 0 is the bare base and cannot be written")
        with torch.no_grad():
            self.values[slot].copy_(row)
            self.ranks[slot] = rank

    def read(self, slot: int) -> Tensor:
        """A copy of the slot's vectors, [P] on the CPU."""
        return self.values[slot].detach().cpu().clone()
