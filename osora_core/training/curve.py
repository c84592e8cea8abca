"""What a job learned, step by step: losses and evaluations, part of its state so that no restart loses them."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """The validation set after `step` steps (0: what the job begins with, the bare base or an adapter).

    Loss in nats a token; accuracy: share of tokens that are the likeliest at their place; exact_match: share of rows
    of which every token is. Of preferences: the loss a pair, the share of pairs whose preferred answer has gained more
    than the other, the preferred answers' exact matches, and by how much they have gained more (`reward_margin`).
    """

    step: int
    total_steps: int
    loss: float
    accuracy: float
    exact_match: float
    reward_margin: float | None = None


@dataclass
class Curve:
    """`losses` (nats a token) and `accuracies` of steps 1, 2, 3 …, and the evaluations between them."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def evaluated_at(self) -> int:
        """The step of the last evaluation, -1 before the first."""
        return self.evaluations[-1].step if self.evaluations else -1

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the lowest loss, the first of equals; the start's counts, one that is no number never."""
        return min((e for e in self.evaluations if math.isfinite(e.loss)), key=lambda e: e.loss, default=None)

    @property
    def start(self) -> Evaluation | None:
        """The evaluation before the first step, where there is one."""
        return self.at(0)

    def at(self, step: int) -> Evaluation | None:
        """The evaluation after so many steps, where there is one."""
        return next((evaluation for evaluation in self.evaluations if evaluation.step == step), None)

    @property
    def since_best(self) -> int:
        """How many evaluations there have been since the best one."""
        return 0 if self.best is None else len(self.evaluations) - 1 - self.evaluations.index(self.best)

    def training_rise(self, steps_per_epoch: int) -> tuple[float, float] | None:
        """The mean training losses of the first and the last tenth of the steps, where the last is the higher one by
        more than batches differ; else None.

        How much they differ is taken from neighbouring steps (von Neumann 1941), whose difference a trend hardly
        changes: twice the standard error of the difference of the two means. Where each step reads all rows, they do
        not differ.
        """
        losses, tenth = self.losses, max(1, len(self.losses) // 10)
        if len(losses) < 2:
            return None
        before, after = fmean(losses[:tenth]), fmean(losses[-tenth:])
        variance = fmean((b - a) ** 2 for a, b in pairwise(losses)) / 2 if steps_per_epoch > 1 else 0.0
        return (before, after) if after - before > 2 * math.sqrt(2 * variance / tenth) else None

    def copy(self) -> "Curve":
        """The curve as it is now; later steps do not change it."""
        return Curve(list(self.losses), list(self.accuracies), list(self.evaluations))

    def evaluation_rows(self) -> list[list[Any]]:
        """The evaluations as JSON values; `from_parts` reads them back."""
        return [[e.step, e.total_steps, e.loss, e.accuracy, e.exact_match, e.reward_margin] for e in self.evaluations]

    @classmethod
    def from_parts(cls, losses: Sequence[float], accuracies: Sequence[float], rows: Sequence[Sequence[Any]]) -> "Curve":
        return cls(list(losses), list(accuracies), [Evaluation(*row) for row in rows])

    def to_csv(self) -> str:
        """OpenAI's result file: a line a step; step 0, where there is one, is the evaluation before the first.

        Numbers are written so that they read back as the same floats.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        measured = ["valid_loss", "valid_mean_token_accuracy", "valid_exact_match"]
        evaluated = {e.step: [repr(e.loss), repr(e.accuracy), repr(e.exact_match)] for e in self.evaluations}
        if any(e.reward_margin is not None for e in self.evaluations):
            measured = ["valid_loss", "valid_reward_accuracy", "valid_exact_match", "valid_reward_margin"]
            evaluated = {e.step: [*evaluated[e.step], repr(e.reward_margin)] for e in self.evaluations}
        writer.writerow(["step", "train_loss", "train_accuracy", *measured])
        if 0 in evaluated:
            writer.writerow([0, "", "", *evaluated[0]])
        for step, (loss, accuracy) in enumerate(zip(self.losses, self.accuracies, strict=True), start=1):
            writer.writerow([step, repr(loss), repr(accuracy), *evaluated.get(step, [""] * len(measured))])
        return text.getvalue()
