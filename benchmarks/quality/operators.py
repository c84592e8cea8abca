"""What each peer adds to a frozen linear, for K runs at once.

Every operator holds what K runs train as parameters [K, ...] in float32, and maps x [K, N, d_in] and the base's
y [K, N, d_out], both in float32, to the y of each run. One frozen product serves all runs; only what is theirs is
batched. The classes named after PEFT's are held to PEFT's own forward by a test.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osora_core.basis import Factors


class Operator(nn.Module):
    """x [K, N, d_in], y [K, N, d_out] -> y [K, N, d_out]; `before` changes what the base's linear reads."""

    def before(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


class Stacked(nn.Module):
    """A frozen linear whose rows [K * B, T, d_in] belong to K runs, one after another."""

    def __init__(self, base: nn.Module, operator: Operator) -> None:
        super().__init__()
        self.base = base
        self.operator = operator
        self.runs = next(operator.parameters()).shape[0]

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.reshape(self.runs, -1, x.shape[-1]).float()
        read = self.operator.before(grouped)
        y: Tensor = self.base(x if read is grouped else read.to(x.dtype).view_as(x))
        own: Tensor = self.operator(grouped, y.view(self.runs, -1, y.shape[-1]).float())
        return own.to(y.dtype).view_as(y)


def stack(tensors: Sequence[Tensor]) -> nn.Parameter:
    """One parameter [K, ...] of what K runs begin with."""
    return nn.Parameter(torch.stack([tensor.detach().float() for tensor in tensors]))


class Lora(Operator):
    """B A x; PiSSA too, whose start is another and whose base has lost that start."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        (name,) = layers[0].active_adapters
        self.a = stack([layer.lora_A[name].weight for layer in layers])
        self.b = stack([layer.lora_B[name].weight for layer in layers])
        self.scaling = layers[0].scaling[name]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.baddbmm(y, torch.bmm(x, self.a.mT), self.b.mT, alpha=self.scaling)


class Vera(Operator):
    """diag(b) B diag(d) A x, with A and B random and shared by all layers (Kopiczko et al. 2024)."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        (name,) = layers[0].active_adapters
        self.d = stack([layer.vera_lambda_d[name] for layer in layers])
        self.b = stack([layer.vera_lambda_b[name] for layer in layers])
        # Views of the one pair of matrices; buffers would be moved apart.
        self.shared = (
            layers[0].vera_A[name][:, : layers[0].in_features].float().to(self.d.device),
            layers[0].vera_B[name][: layers[0].out_features].float().to(self.d.device),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shared_a, shared_b = self.shared
        inner = F.linear(x, shared_a) * self.d.unsqueeze(1)
        return torch.addcmul(y, F.linear(inner, shared_b), self.b.unsqueeze(1))


class Ia3(Operator):
    """Outputs, or in a feed-forward's last linear inputs, each times a trained factor (Liu et al. 2022)."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        (name,) = layers[0].active_adapters
        self.l = stack([layer.ia3_l[name].flatten() for layer in layers])
        self.on_inputs = layers[0].is_feedforward

    def before(self, x: Tensor) -> Tensor:
        return x * self.l.unsqueeze(1) if self.on_inputs else x

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y if self.on_inputs else y * self.l.unsqueeze(1)


class Psoft(Operator):
    """B (R - 1) A x with the principal subspace in A and B, and R a scaled rotation by Cayley's map (PSOFT, 2026)."""

    rows: Tensor
    columns: Tensor
    A: Tensor
    B: Tensor

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        (name,) = layers[0].active_adapters
        rotations = [layer.psoft_R[name] for layer in layers]
        self.q = stack([rotation.weight for rotation in rotations])
        self.outer = stack([rotation.vector_b for rotation in rotations])
        self.inner = stack([rotation.vector_a for rotation in rotations])
        a, b = layers[0]._get_psoft_ab_cache_buffers(name)
        for key, value in (("A", a), ("B", b * layers[0].scaling[name])):
            self.register_buffer(key, value.float(), persistent=False)
        for key, value in (("rows", rotations[0].rows), ("columns", rotations[0].cols)):
            self.register_buffer(key, value, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        projected = F.linear(x, self.A)
        return y + F.linear(torch.bmm(projected, self._rotation().mT) - projected, self.B)

    def _rotation(self) -> Tensor:
        size = self.A.shape[0]
        skew = self.q.new_zeros(len(self.q), size, size)
        skew[:, self.rows, self.columns] = self.q
        skew = skew - skew.mT
        one = torch.eye(size, device=skew.device)
        turned = torch.linalg.solve(one - skew, one + skew, left=False)
        scaled: Tensor = self.outer.unsqueeze(2) * turned * self.inner.unsqueeze(1)
        return scaled


class LoraXs(Operator):
    """U S R V^T x with R [r, r] trained from about zero (Bałazy et al. 2024)."""

    START = 1e-5
    A: Tensor
    B: Tensor

    def __init__(self, factors: Factors, rank: int, seeds: Sequence[int], index: int) -> None:
        super().__init__()
        used = min(rank, len(factors.S))
        self.register_buffer("A", factors.Vt[:used].float(), persistent=False)
        self.register_buffer("B", factors.U[:, :used].float() * factors.S[:used], persistent=False)
        draws = [torch.Generator().manual_seed(seed * 1_000_003 + index) for seed in seeds]
        self.r = stack([self.START * torch.randn(used, used, generator=draw).to(self.A.device) for draw in draws])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y + F.linear(torch.bmm(F.linear(x, self.A), self.r.mT), self.B)


class Absolute(Operator):
    """OSoRA as published code has it: W_res x + o * U (s * V^T x), s trained from s0 at the same rate as o from 1.

    W_res = W0 - U diag(s0) V^T is not stored: what it lacks is taken away from y.
    """

    U: Tensor
    Vt: Tensor
    S: Tensor

    def __init__(self, factors: Factors, rank: int, runs: int) -> None:
        super().__init__()
        used = min(rank, len(factors.S))
        self.register_buffer("U", factors.U[:, :used].float(), persistent=False)
        self.register_buffer("Vt", factors.Vt[:used].float(), persistent=False)
        self.register_buffer("S", factors.S[:used].float(), persistent=False)
        self.s = stack([self.S] * runs)
        self.o = stack([torch.ones_like(self.U[:, 0])] * runs)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = F.linear(x, self.Vt)
        residual = y - F.linear(self.S * z, self.U)
        return residual + self.o.unsqueeze(1) * F.linear(self.s.unsqueeze(1) * z, self.U)


def of_peft(layers: Sequence[Any]) -> Operator:
    """What PEFT's layers of K runs, in one place of the model, add to their base."""
    for attribute, operator in (("lora_A", Lora), ("vera_lambda_d", Vera), ("ia3_l", Ia3), ("psoft_R", Psoft)):
        if hasattr(layers[0], attribute):
            made: Operator = operator(layers)
            return made
    raise TypeError(f"there is no operator for PEFT's {type(layers[0]).__name__}")
