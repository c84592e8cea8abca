"""Adam over bank rows: every active job's step in a handful of operations on [jobs, P] matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.training.spec import JobSpec

# A second moment over about 100 steps: the loss falls fast at first, and a longer memory would brake what follows.
BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8


@dataclass(frozen=True)
class RowStep:
    """One row's part in an optimizer step. `step` is the 0-based index of the job's own step."""

    slot: int
    learning_rate: float
    step: int
    max_grad_norm: float


class RowAdam:
    """Adam (Kingma & Ba 2015, no weight decay) where each row of the bank is a problem of its own.

    `scale` [n, P] multiplies a row's rate per value: sigma_rate * s0 for sigma, which makes its rate relative to the
    singular value, 1 for delta, 0 for what the job does not train.
    """

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.first = torch.zeros_like(bank.values)
        self.second = torch.zeros_like(bank.values)
        self.scale = torch.zeros_like(bank.values)

    def begin(self, slot: int, scale: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> None:
        """Set a row's scale [P] and moments [P] (zeros at a job's start)."""
        self.scale[slot] = scale.to(self.scale)
        for moments, given in ((self.first, first), (self.second, second)):
            moments[slot] = 0 if given is None else given.to(moments)

    def step(self, rows: Sequence[RowStep]) -> Tensor:
        """Take the bank's gradients, clip each row's, update its values.

        Returns for each row [rows] whether its gradient and its new values are all numbers, on the bank's device.
        """
        device = self.bank.values.device
        all_grads = self.bank.take_grads()
        if not rows:
            return torch.ones(0, dtype=torch.bool, device=device)
        index = torch.tensor([r.slot for r in rows], dtype=torch.long, device=device)

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device).unsqueeze(1)

        scale = self.scale[index]
        grads = torch.where(scale != 0, all_grads[index], 0.0)
        # Row by row: how a sum over several is split among threads depends on how many there are.
        norms = torch.stack([torch.linalg.vector_norm(row) for row in grads]).unsqueeze(1)
        grads *= (column([r.max_grad_norm for r in rows]) / (norms + 1e-6)).clamp(max=1.0)
        first = self.first[index].lerp_(grads, 1 - BETA1)
        second = self.second[index].mul_(BETA2).addcmul_(grads, grads, value=1 - BETA2)
        self.first[index], self.second[index] = first, second
        rate = column([r.learning_rate / (1 - BETA1 ** (r.step + 1)) for r in rows])
        root = column([(1 - BETA2 ** (r.step + 1)) ** 0.5 for r in rows])
        update = first / (second.sqrt() / root + EPSILON)
        with torch.no_grad():
            values = self.bank.values[index] - rate * scale * update
            self.bank.values[index] = values
        finite: Tensor = norms.squeeze(1).isfinite() & torch.linalg.vector_norm(values, torch.inf, dim=1).isfinite()
        return finite


def row_scale(spec: JobSpec, basis: Basis) -> Tensor:
    """The per-value rate scale [P] of a job: zero outside its rank, its target modules and the vectors it trains."""
    scale = torch.zeros(basis.row_length)
    for span in basis.spans:
        if spec.target_modules != "all-linear" and span.name.rpartition(".")[2] not in spec.target_modules:
            continue
        if spec.train in ("both", "s"):
            used = min(spec.rank, span.rank)
            scale[span.start : span.start + used] = spec.sigma_rate * basis.factors[span.name].S[:used].float().cpu()
        if spec.train in ("both", "o"):
            scale[span.delta] = 1.0
    return scale
