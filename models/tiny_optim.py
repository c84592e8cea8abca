"""Muon beside AdamW, and the length and learning rate of a run (see train_tiny.py)."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from torch import nn

TIMED_STEPS = (10, 60)  # by the first everything is compiled; from there to the second is timed


def orthogonalise(batch: torch.Tensor) -> torch.Tensor:
    """Move the singular values of every matrix towards 1 by five quintic Newton-Schulz steps.

    The coefficients are those published with Muon (Keller Jordan, 2024): they favour a fast
    rise of small singular values over exactness, which training does not need.
    """
    tall = batch.shape[-2] > batch.shape[-1]
    x: torch.Tensor = batch.mT if tall else batch
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.bfloat16() if batch.is_cuda else x
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    result: torch.Tensor = x.mT if tall else x
    return result.to(batch.dtype)


class Muon:
    """Orthogonalised Nesterov momentum for matrices, batched by shape.

    One batched product for all matrices of a shape costs a few launches; one per matrix would
    take longer than a whole step of so small a model. Updates are scaled to the size that
    AdamW's have (0.2 * sqrt of the longer side), so learning rate and decay mean the same.
    """

    def __init__(self, weights: list[torch.Tensor], rate: float, decay: float, compiled: bool) -> None:
        self.rate, self.decay, self.momentum = rate, decay, 0.95
        self.orthogonalise = torch.compile(orthogonalise, dynamic=False) if compiled else orthogonalise
        shapes = sorted({tuple(weight.shape) for weight in weights})
        self.groups = [[w for w in weights if tuple(w.shape) == shape] for shape in shapes]
        self.buffers = [torch.zeros_like(torch.stack(list(group))) for group in self.groups]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Apply one update at ``factor`` times the peak learning rate."""
        rate = self.rate * factor
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradients = torch.stack([w.grad for w in group if w.grad is not None])
            buffer.lerp_(gradients, 1 - self.momentum)
            update = self.orthogonalise(gradients.lerp(buffer, self.momentum))
            scale = 0.2 * math.sqrt(max(buffer.shape[1:]))
            torch._foreach_mul_(group, 1 - rate * self.decay)
            torch._foreach_add_(group, list(update.unbind()), alpha=-rate * scale)


class Optimiser:
    """Muon for the layers' matrices and AdamW for the rest, or AdamW for everything."""

    def __init__(self, model: nn.Module, args: argparse.Namespace, compiled: bool) -> None:
        named: list[tuple[str, torch.Tensor]] = list(model.named_parameters())
        hidden = [w for name, w in named if w.ndim == 2 and "layers" in name]
        norms = [w for _, w in named if w.ndim < 2]
        tables = [w for name, w in named if w.ndim == 2 and "layers" not in name]
        self.muon = None
        if args.optimizer == "muon":
            self.muon = Muon(hidden, args.muon_lr, args.weight_decay, compiled)
        else:
            tables += hidden
        groups: list[dict[str, Any]] = [
            {"params": tables, "weight_decay": args.weight_decay},
            {"params": norms, "weight_decay": 0.0},
        ]
        fused = norms[0].is_cuda
        self.adamw = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=fused)
        self.rate = float(args.lr)
        self.parameters = [w for _, w in named]

    def step(self, factor: float) -> None:
        """Clip, update and forget the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if self.muon is not None:
            self.muon.step(factor)
        for group in self.adamw.param_groups:
            group["lr"] = self.rate * factor
        self.adamw.step()
        for weight in self.parameters:
            weight.grad = None


class Plan:
    """How long the run is: given in steps, or fitted to a time budget as the speed shows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.total: int | None = args.steps
        self.timed = args.steps is None
        self.warmup, self.decay = int(args.warmup), float(args.decay)
        self.started = time.monotonic()
        self.deadline = self.started + 60 * float(args.minutes)
        self.mark: tuple[int, float] | None = None

    def fit(self, done: int) -> None:
        """Choose the number of steps that fits the time left; never once the decay has begun."""
        now = time.monotonic()
        if done == TIMED_STEPS[0]:
            self.mark = (done, now)
            return
        settled = self.progress(done) > 1 - self.decay
        if self.timed and self.mark is not None and done >= TIMED_STEPS[1] and not settled:
            seconds = (now - self.mark[1]) / (done - self.mark[0])
            self.total = done + max(1, int((self.deadline - now) / seconds))

    def progress(self, done: int) -> float:
        """The part of the run that lies behind; nothing before the length is known."""
        return done / self.total if self.total else 0.0

    def rate_factor(self, done: int) -> float:
        """Warm-up, constant, then linear to zero over the last ``decay`` of the run."""
        warmup = min(self.warmup, self.total // 5) if self.total else self.warmup
        rise = min(1.0, (done + 1) / max(1, warmup))
        return min(rise, (1 - self.progress(done)) / self.decay)
