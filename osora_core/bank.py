"""The bank: the vectors of many adapters as one matrix, the same object in training and in serving."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from osora_core.basis import Basis
from osora_core.errors import OutOfSlots
from osora_core.lazy_zeros import zeros
from osora_core.mix import mix_length

NONE: Mapping[int, Tensor] = MappingProxyType({})


class Bank:
    """`capacity` slots over one basis. Slot 0 is zero for ever: the bare base.

    values [n, P] (float32 unless a `dtype` is given) holds every module's sigma and delta side by side
    (P = basis.row_length), so that loading an adapter is one row copy and an optimizer step one vector operation.
    `layers[i]` are the (sigma [n, R_i], delta [n, d_out_i]) views that the i-th module reads; in a trainable bank they
    are parameters, and `take_grads` collects what they gathered. ranks [n]: how many leading triplets each slot uses.

    mixes: the C of all modules [M] (`osora_core.mix`) of each slot that has a mix, and of no other: a tensor of its
    own, in a trainable bank a parameter; mix_sizes: the c of each of them.
    """

    def __init__(
        self, basis: Basis, capacity: int, *, device: torch.device, trainable: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        rows = capacity + 1
        self.basis = basis
        self.values = zeros(rows, basis.row_length, dtype=dtype, device=device)
        self.ranks = torch.zeros(rows, dtype=torch.long, device=device)
        self.mixes: dict[int, Tensor] = {}
        self.mix_sizes: dict[int, int] = {}
        self._trainable = trainable
        self._views = [self.values[:, columns] for span in basis.spans for columns in (span.sigma, span.delta)]
        if trainable:
            # Leaves that share the matrix's memory: a write to a row is seen by the next forward.
            self._views = [nn.Parameter(view) for view in self._views]
        self.layers = list(zip(self._views[::2], self._views[1::2], strict=True))
        self._free = list(range(capacity, 0, -1))

    def take_grads(self) -> Tensor:
        """The gradients [n, P] that backward passes left since the last call; the next ones start from nothing.

        Those of mixes are `take_mix_grads`'s."""
        grads = torch.cat([torch.zeros_like(v) if v.grad is None else v.grad for v in self._views], dim=1)
        for view in self._views:
            view.grad = None
        return grads

    def take_mix_grads(self) -> dict[int, Tensor]:
        """As `take_grads`, of the slots with a mix that backward passes have left gradients [M] for."""
        grads = {slot: mix.grad for slot, mix in self.mixes.items() if mix.grad is not None}
        for slot in grads:
            self.mixes[slot].grad = None
        return grads

    def drop_grads(self) -> None:
        """Forget what backward passes left."""
        for tensor in (*self._views, *self.mixes.values()):
            tensor.grad = None

    def put_grads(self, grads: Tensor, of_mixes: Mapping[int, Tensor] = NONE) -> None:
        """Replace what backward passes left by these gradients [n, P], and those [M] of mixes by slot; later passes add
        to them."""
        columns = torch.split(grads, [view.shape[1] for view in self._views], dim=1)
        for view, part in zip(self._views, columns, strict=True):
            view.grad = part.contiguous()  # as those are to which a backward pass adds
        for slot, mix in self.mixes.items():
            mix.grad = of_mixes.get(slot)

    @property
    def rows(self) -> int:
        """n: its slots, and the bare base."""
        return self.values.shape[0]

    @property
    def capacity(self) -> int:
        return self.rows - 1

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

    def write(self, slot: int, row: Tensor, rank: int, mix: int = 0) -> None:
        """Set a slot's vectors (row [P]) and rank, in place: captured graphs and views stay valid.

        With a mix of size `mix` the row is [P + M]. Raises ValueError for one of another length.
        """
        if slot == 0:
            raise ValueError("slot 0 is the bare base and cannot be written")
        length = self.values.shape[1]
        if len(row) != length + (mix_length(self.basis.spans, mix) if mix else 0):
            raise ValueError(f"a row of {len(row)} values does not fit a slot with a mix of size {mix}")
        with torch.no_grad():
            self.values[slot].copy_(row[:length])
            self.ranks[slot] = rank
            self._write_mix(slot, row[length:], mix)

    def _write_mix(self, slot: int, values: Tensor, size: int) -> None:
        if not size:
            self.mixes.pop(slot, None)
            self.mix_sizes.pop(slot, None)
        elif self.mix_sizes.get(slot) == size:
            self.mixes[slot].copy_(values)
        else:
            own = values.to(self.values.device, self.values.dtype, copy=True)
            self.mixes[slot] = nn.Parameter(own) if self._trainable else own
            self.mix_sizes[slot] = size

    def read(self, slot: int) -> Tensor:
        """A copy of the slot's row, [P] on the CPU; [P + M] with a mix."""
        parts = [self.values[slot], *([self.mixes[slot]] if slot in self.mixes else [])]
        return torch.cat([part.detach().cpu() for part in parts])
