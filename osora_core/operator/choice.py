"""The one place that chooses how a layer computes its operator, by what costs least. Shapes: see the package."""

from collections.abc import Sequence

from torch import Tensor, float32, nn

from osora_core.operator.autograd import osora_update
from osora_core.operator.batched import osora_add_batched
from osora_core.operator.merged import osora_linear_merged
from osora_core.operator.mixes import Mixes
from osora_core.operator.runs import SlotRuns


def osora_linear(
    x: Tensor, base: nn.Module, U: Tensor, S: Tensor, Vt: Tensor, sigma: Tensor, delta: Tensor, slots: Tensor,
    ranks: Tensor, grouped: SlotRuns | None = None, mixes: Sequence[Mixes] = (),
) -> Tensor:  # fmt: skip
    """y [..., d_out] = base(x) + update, for a frozen `base` that maps [..., d_in] to [..., d_out].

    The operands are those of `osora_update`. `grouped`: the runs that all rows of x form by slot, where the
    caller has grouped them; the merged and the batched execution need that.
    """
    if grouped is not None and isinstance(base, nn.Linear) and _merging_pays(x, base, len(grouped.runs)):
        return osora_linear_merged(x, base.weight, base.bias, U, S, Vt, sigma, delta, ranks, grouped.runs, mixes)
    y: Tensor = base(x)
    if grouped is not None and _batching_pays(x, y, U, len(grouped.runs)):
        return osora_add_batched(x, y, U, S, Vt, sigma, delta, ranks, grouped.slots, grouped.equal, mixes)
    return y + osora_update(x, U, S, Vt, sigma, delta, slots, ranks, mixes)


def _merging_pays(x: Tensor, base: nn.Linear, runs: int) -> bool:
    """Whether two dense weights a run cost less than the R (d_in + 4 d_out) products a token that they save.

    Both sides have R in common. Never on a GPU, where one run after another would be hundreds of launches, and never
    for a subclass of nn.Linear, whose forward may be another one.
    """
    if type(base) is not nn.Linear or x.dtype != float32 or x.is_cuda:
        return False
    d_out, d_in = base.weight.shape
    tokens = x.numel() // d_in
    return tokens * (d_in + 4 * d_out) > runs * 2 * d_in * d_out


def _batching_pays(x: Tensor, y: Tensor, U: Tensor, runs: int) -> bool:
    """Whether d_out R values a run are fewer than the d_out values a token that the general form reads and writes
    again and again, which is what costs on a GPU."""
    same = x.dtype == y.dtype == U.dtype and x.dim() == 3
    tokens = x.numel() // x.shape[-1]
    return same and x.is_cuda and tokens >= U.shape[1] * runs and y.is_contiguous()
