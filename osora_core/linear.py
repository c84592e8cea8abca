"""The layer that applies the operator to a frozen linear, and the context that says which rows have which adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from osora_core.operator import Blocks, Spans, blocks_of, osora_add_batched, osora_linear_merged, osora_update

if TYPE_CHECKING:
    from osora_core.bank import Bank
    from osora_core.basis import Factors


@dataclass(frozen=True)
class Groups:
    """A batch whose rows are grouped by slot: its spans, their slots [spans] and the blocks that they form."""

    spans: Spans
    slots: Tensor
    blocks: Blocks


@dataclass(frozen=True)
class Selection:
    """Which bank row each batch row uses: slots [B], or [B, T] for one a token; groups if rows are grouped by slot."""

    bank: "Bank"
    slots: Tensor
    groups: Groups | None


_selection: ContextVar[Selection | None] = ContextVar("osora_selection", default=None)


@contextmanager
def use_slots(bank: "Bank", slots: Tensor, spans: Spans | None = None) -> Iterator[None]:
    """Run the model with these bank rows. Outside this context every OsoraLinear is its bare base.

    A caller whose rows are grouped by slot may say so with `spans` (host integers): layers then take the merged or the
    batched execution where it is the cheaper one.
    """
    groups = None
    if spans is not None:
        groups = Groups(spans, torch.tensor([slot for slot, _, _ in spans], device=slots.device), blocks_of(spans))
    token = _selection.set(Selection(bank, slots, groups))
    try:
        yield
    finally:
        _selection.reset(token)


class OsoraLinear(nn.Module):
    """A frozen linear and its basis; the adapters live in the bank that `use_slots` names."""

    U: Tensor
    S: Tensor
    Vt: Tensor

    def __init__(self, base: nn.Module, factors: "Factors", index: int) -> None:
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
            return bare
        sigma, delta = selection.bank.layers[self.index]
        ranks, groups = selection.bank.ranks, selection.groups
        if groups is not None and self._merging_pays(x, len(groups.spans)):
            weight, bias = cast(nn.Linear, self.base).weight, cast(nn.Linear, self.base).bias
            return osora_linear_merged(x, weight, bias, self.U, self.S, self.Vt, sigma, delta, ranks, groups.spans)
        y: Tensor = self.base(x)
        if groups is not None and self._batching_pays(x, y, groups):
            return osora_add_batched(x, y, self.U, self.S, self.Vt, sigma, delta, ranks, groups.slots, groups.blocks)
        return y + osora_update(x, self.U, self.S, self.Vt, sigma, delta, selection.slots, ranks)

    def _merging_pays(self, x: Tensor, slots: int) -> bool:
        """Whether two dense weights a slot cost less than the R (d_in + 4 d_out) products a token that they save.

        On a GPU one slot after another would be hundreds of launches.
        """
        if type(self.base) is not nn.Linear or x.dtype != torch.float32 or x.is_cuda:
            return False
        d_out, d_in = self.base.weight.shape
        tokens = x.numel() // d_in
        return tokens * (d_in + 4 * d_out) > slots * 2 * d_in * d_out

    def _batching_pays(self, x: Tensor, y: Tensor, groups: Groups) -> bool:
        """Whether d_out R values a slot are fewer than the d_out values a token that the general form reads and writes
        again and again, which is what costs on a GPU."""
        same = x.dtype == y.dtype == self.U.dtype and x.dim() == 3
        tokens = x.numel() // x.shape[-1]
        return same and x.is_cuda and tokens >= self.U.shape[1] * len(groups.spans) and y.is_contiguous()
