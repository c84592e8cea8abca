"""Adam over bank rows: every active job's step in a handful of operations on [jobs, P] matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.mix import mix_length, mix_spans
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


@dataclass(frozen=True)
class _OfMix:
    """What `RowAdam` keeps of a slot's mix, [M] each."""

    first: Tensor
    second: Tensor
    scale: Tensor


class RowAdam:
    """Adam (Kingma & Ba 2015, no weight decay) where each row of the bank is a problem of its own.

    `scale` [n, P] multiplies a row's rate per value: sigma_rate * s0 for sigma, which makes its rate relative to the
    singular value, 1 for delta, 0 for what the job does not train. The values of a row's mix, for rows that have one,
    come behind the P, with mix_rate times the mean of the s0 that they mix.
    """

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.first = torch.zeros_like(bank.values)
        self.second = torch.zeros_like(bank.values)
        self.scale = torch.zeros_like(bank.values)
        self._mixes: dict[int, _OfMix] = {}

    def begin(self, slot: int, scale: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> None:
        """Set a row's scale and moments (zeros at a job's start), [P] each; [P + M] where the slot has a mix."""
        length = self.scale.shape[1]
        self.scale[slot] = scale[:length].to(self.scale)
        for moments, given in ((self.first, first), (self.second, second)):
            moments[slot] = 0 if given is None else given[:length].to(moments)
        self.end(slot)
        if len(scale) > length:
            of_mix = scale[length:].to(self.scale)
            its_first, its_second = (
                torch.zeros_like(of_mix) if given is None else given[length:].to(of_mix, copy=True)
                for given in (first, second)
            )
            self._mixes[slot] = _OfMix(its_first, its_second, of_mix)

    def end(self, slot: int) -> None:
        """Forget what a row's mix has taken; its own place stays."""
        self._mixes.pop(slot, None)

    def read(self, slot: int) -> tuple[Tensor, Tensor]:
        """Copies of a row's moments, as `begin` takes them, on the CPU."""
        first, second = [self.first[slot].cpu().clone()], [self.second[slot].cpu().clone()]
        if slot in self._mixes:
            first.append(self._mixes[slot].first.cpu())
            second.append(self._mixes[slot].second.cpu())
        return torch.cat(first), torch.cat(second)

    def step(self, rows: Sequence[RowStep]) -> Tensor:
        """Take the bank's gradients, clip each row's, update its values.

        Returns for each row [rows] whether its gradient and its new values are all numbers, on the bank's device.
        """
        device = self.bank.values.device
        all_grads, mix_grads = self.bank.take_grads(), self.bank.take_mix_grads()
        if not rows:
            return torch.ones(0, dtype=torch.bool, device=device)
        index = torch.tensor([r.slot for r in rows], dtype=torch.long, device=device)

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device).unsqueeze(1)

        scale = self.scale[index]
        grads = torch.where(scale != 0, all_grads[index], 0.0)
        of_mixes = {
            at: torch.where(self._mixes[row.slot].scale != 0, mix_grads[row.slot], 0.0)
            for at, row in enumerate(rows)
            if row.slot in mix_grads
        }
        # Row by row: how a sum over several is split among threads depends on how many there are.
        norms = torch.stack([_norm(row, of_mixes.get(at)) for at, row in enumerate(grads)]).unsqueeze(1)
        clipping = (column([r.max_grad_norm for r in rows]) / (norms + 1e-6)).clamp(max=1.0)
        rate = column([r.learning_rate / (1 - BETA1 ** (r.step + 1)) for r in rows])
        root = column([(1 - BETA2 ** (r.step + 1)) ** 0.5 for r in rows])
        first, second = self.first[index], self.second[index]
        with torch.no_grad():
            values = self.bank.values[index] - _update(grads, clipping, first, second, rate, root, scale)
            self.first[index], self.second[index] = first, second
            self.bank.values[index] = values
        largest = torch.linalg.vector_norm(values, torch.inf, dim=1)
        for at, grad in of_mixes.items():
            slot, own = rows[at].slot, (t[at] for t in (clipping, rate, root))
            largest[at] = torch.maximum(largest[at], self._step_mix(slot, grad, *own))
        finite: Tensor = norms.squeeze(1).isfinite() & largest.isfinite()
        return finite

    def _step_mix(self, slot: int, grad: Tensor, clipping: Tensor, rate: Tensor, root: Tensor) -> Tensor:
        """Update a slot's mix, of which this is the gradient [M]; returns its largest value."""
        state, values = self._mixes[slot], self.bank.mixes[slot]
        with torch.no_grad():
            values -= _update(grad, clipping, state.first, state.second, rate, root, state.scale)
            largest: Tensor = torch.linalg.vector_norm(values, torch.inf)
        return largest


def _norm(grad: Tensor, of_mix: Tensor | None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(grad)
    return norm if of_mix is None else torch.hypot(norm, torch.linalg.vector_norm(of_mix))


def _update(
    grad: Tensor, clipping: Tensor, first: Tensor, second: Tensor, rate: Tensor, root: Tensor, scale: Tensor
) -> Tensor:
    """What Adam takes from values with these gradients, which are clipped in place, and these moments, which follow."""
    grad *= clipping
    first.lerp_(grad, 1 - BETA1)
    second.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
    return rate * scale * (first / (second.sqrt() / root + EPSILON))


def row_scale(spec: JobSpec, basis: Basis) -> Tensor:
    """The per-value rate scale [P] of a job, [P + M] with a mix: zero outside its rank, its target modules and the
    vectors it trains."""
    length = basis.row_length
    scale = torch.zeros(length + mix_length(basis.spans, spec.mix))
    for span, mix in zip(basis.spans, mix_spans(basis.spans, spec.mix), strict=True):
        if spec.target_modules != "all-linear" and span.name.rpartition(".")[2] not in spec.target_modules:
            continue
        S = basis.factors[span.name].S.float().cpu()
        if spec.train in ("both", "s"):
            used = min(spec.rank, span.rank)
            scale[span.start : span.start + used] = spec.sigma_rate * S[:used]
        if spec.train in ("both", "o"):
            scale[span.delta] = 1.0
        if mix.size:
            scale[length:][mix.values] = spec.mix_rate * S[: mix.size].mean()
    return scale
