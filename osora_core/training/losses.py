"""What a job brings to a step: rows with the share that each has in the job's loss, and what its figures are.

Every loss here is a weighted sum of token losses, so that jobs of all kinds go through the model together. For
supervised jobs the weights are one over the count of tokens. Preferences (DPO, Rafailov et al. 2023, equation 7) lose

    -log sigmoid(m),   m = beta * ((log p(w) - log p_ref(w)) - (log p(l) - log p_ref(l)))

a pair, with w the preferred answer, l the other and log p summed over an answer's tokens. Its gradient is
beta * sigmoid(-m) * (grad -log p(w) - grad -log p(l)): once m is known from a pass without gradient, the same weighted
sum. The reference is another slot of the same bank, the bare base or what the job began with, in the same pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.data import Example, Row, sequences
from osora_core.training.job import TrainingJob
from osora_core.training.passes import Passes


@dataclass(frozen=True)
class Figures:
    """Of one step, as a Progress tells them."""

    loss: float
    accuracy: float
    reward_margin: float | None = None


@dataclass(frozen=True)
class Contribution:
    """rows: (example, index into `shares`). Figures that the passes have yet to tell are None."""

    rows: list[tuple[Example, int]]
    shares: list[float]
    known: Figures | None = None

    @property
    def tokens(self) -> int:
        """All that are read, prompts included."""
        return sum(len(row) for row, _ in self.rows)

    def figures(self, losses: Sequence[float], hits: Sequence[float]) -> Figures:
        """From the summed loss and hits of the rows of each share."""
        if self.known is not None:
            return self.known
        (share,) = self.shares
        return Figures(losses[0] * share, hits[0] * share)


def contributions(stepping: Sequence[tuple[TrainingJob, Sequence[Row]]], passes: Passes) -> list[Contribution]:
    """What each of these jobs brings with the batch beside it."""
    margins = iter(_margins([(job, batch) for job, batch in stepping if job.spec.method == "dpo"], passes))
    return [
        _preferences(job, batch, next(margins)) if job.spec.method == "dpo" else _answers(batch)
        for job, batch in stepping
    ]


def _answers(batch: Sequence[Row]) -> Contribution:
    return Contribution([(row, 0) for row in sequences(batch)], [1 / sum(row.loss_tokens for row in batch)])


def _preferences(job: TrainingJob, batch: Sequence[Row], margins: Tensor) -> Contribution:
    pull = (job.spec.beta * torch.sigmoid(-margins) / len(batch)).tolist()
    rows = [(row, index) for index, row in enumerate(sequences(batch))]
    return Contribution(rows, pull + [-weight for weight in pull], preference_figures(margins))


def _margins(stepping: Sequence[tuple[TrainingJob, Sequence[Row]]], passes: Passes) -> list[Tensor]:
    """m of each job's pairs, [pairs] float64 on the CPU: all in common passes, a row of a slot once for all who ask.

    Members of a sweep read the same rows against one reference, which so costs no more than a single job's.
    """
    places: dict[tuple[int, Example], int] = {}

    def ask(slot: int, rows: Sequence[Example]) -> list[int]:
        return [places.setdefault((slot, row), len(places)) for row in rows]

    asked = [(job, [ask(slot, sequences(batch)) for slot in (job.slot, job.reference.slot)]) for job, batch in stepping]
    if not places:
        return []
    losses = passes.scores([(row, index) for (_, row), index in places.items()], [slot for slot, _ in places]).losses
    return [gain(job, losses[policy], losses[reference]) for job, (policy, reference) in asked]


def gain(job: TrainingJob, policy: Tensor, reference: Tensor) -> Tensor:
    """m of pairs [n] from the summed losses [2n] of their sequences."""
    chosen, rejected = (reference - policy).chunk(2)
    return job.spec.beta * (chosen - rejected)


def mean_losses(job: TrainingJob, rows: Sequence[Row], slots: Sequence[int], passes: Passes) -> list[float]:
    """The loss of each slot on the same rows, in common passes: nats a token, or of preferences, against the job's
    reference, a pair."""
    read = sequences(rows)
    if job.spec.method == "supervised":
        losses = passes.scores([(row, index) for index in range(len(slots)) for row in read], slots).losses
        return (losses / sum(row.loss_tokens for row in rows)).tolist()
    items = [(row, index) for index, row in enumerate(read * len(slots))]
    losses = passes.scores(items, [slot for slot in slots for _ in read]).losses
    reference = job.reference.losses(rows, passes)
    return [preference_figures(gain(job, policy, reference)).loss for policy in losses.view(len(slots), -1)]


def preference_figures(margins: Tensor) -> Figures:
    loss = F.softplus(-margins).mean().item()
    return Figures(loss, (margins > 0).double().mean().item(), margins.mean().item())
