"""Products with frozen weights, through the fastest library on the device.

For float32 on a CPU, PyTorch's linears call MKL, which runs at less than half speed on processors that are not Intel's.
oneDNN, which PyTorch has on board for its compiler, does not, and a row's result there does not depend on how many rows
stand beside it (but for a row alone). It is used only where OSORA_ONEDNN=1 asks for it: with a small base whose weights
were float32 in their file, a worker's first loss once was not a number, and that is not understood yet.
"""

import os
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ONEDNN = (
    os.environ.get("OSORA_ONEDNN") == "1"
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
# The layout of a packed weight is chosen for so many rows, and serves any number.
_ROWS = 32


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, [..., d_out] of x [..., d_in]. The fast library only computes what nobody will differentiate.

    `weight` [d_out, d_in] may be the transpose of what is stored.
    """
    if not _is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def frozen_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer whose weights do not train makes of x [..., d_in]; gradients flow to x alone."""
    if not is_plain(layer) or layer.weight.requires_grad or not _is_for_onednn(x.detach(), layer.weight):
        y: Tensor = layer(x)
        return y
    y = _Frozen.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return y


class Packed:
    """A copy of a weight [d_out, d_in] and its bias in the layout that computes a few rows fastest, for inference."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight, self._bias = weight.detach().contiguous(), bias
        self._is_packed = _ONEDNN and weight.device.type == "cpu" and weight.dtype == torch.float32
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, _ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """x W^T + b, [..., d_out] of x [..., d_in] in the weight's dtype. No gradients flow through it."""
        if not self._is_packed:
            return F.linear(x, self._weight, self._bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is a linear with a dense matrix: neither quantised nor spread over several devices."""
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        _ONEDNN
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
    )


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return linear(grad_outputs[0], weight.T), None, None
