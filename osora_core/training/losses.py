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

from osora_core.data import Example, Preference, Row
from osora_core.training.curve import Evaluation
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


def contribution(job: TrainingJob, batch: Sequence[Row], passes: Passes) -> Contribution:
    """What the job brings with its next batch."""
    if job.spec.method == "supervised":
        counted = sum(row.loss_tokens for row in batch)
        return Contribution([(row, 0) for row in batch if isinstance(row, Example)], [1 / counted])
    pairs = [row for row in batch if isinstance(row, Preference)]
    margins, _ = _margins(job, pairs, passes)
    pull = (job.spec.beta * torch.sigmoid(-margins) / len(pairs)).tolist()
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    shares = pull + [-weight for weight in pull]
    return Contribution([(row, index) for index, row in enumerate(rows)], shares, _preference_figures(margins))


def evaluate(job: TrainingJob, passes: Passes) -> Evaluation:
    """The job as it is now on all of its validation rows, of which there is at least one.

    A row is an exact match if every counted token (of the preferred answer) is the likeliest at its place: then greedy
    decoding gives the row's answer.
    """
    pairs = [row for row in job.valid if isinstance(row, Preference)]
    if pairs:
        margins, hits = _margins(job, pairs, passes)
        found, exact = _preference_figures(margins), _exact([pair.chosen for pair in pairs], hits)
        return Evaluation(job.step, job.total_steps, found.loss, found.accuracy, exact, found.reward_margin)
    rows = [row for row in job.valid if isinstance(row, Example)]
    losses, hits = passes.scores([(row, index) for index, row in enumerate(rows)], [job.slot] * len(rows))
    counted = sum(row.loss_tokens for row in rows)
    loss, accuracy = losses.sum().item() / counted, hits.sum().item() / counted
    return Evaluation(job.step, job.total_steps, loss, accuracy, _exact(rows, hits))


def _exact(rows: Sequence[Example], hits: Tensor) -> float:
    right = [row.loss_tokens == int(found) for row, found in zip(rows, hits.tolist(), strict=False)]
    return sum(right) / len(rows)


def _margins(job: TrainingJob, pairs: Sequence[Preference], passes: Passes) -> tuple[Tensor, Tensor]:
    """m of each pair, [pairs] float64 on the CPU, and how many tokens of each row the job has right."""
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    slots = [job.slot] * len(rows) + [job.reference] * len(rows)
    losses, hits = passes.scores([(row, index) for index, row in enumerate(rows + rows)], slots)
    policy, reference = losses.chunk(2)
    gained = reference - policy
    chosen, rejected = gained.chunk(2)
    return job.spec.beta * (chosen - rejected), hits


def _preference_figures(margins: Tensor) -> Figures:
    loss = F.softplus(-margins).mean().item()
    return Figures(loss, (margins > 0).double().mean().item(), margins.mean().item())
