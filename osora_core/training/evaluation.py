"""What an evaluation measures of a job on its validation rows."""

from collections.abc import Sequence

from torch import Tensor

from osora_core.data import Example, sequences
from osora_core.training.curve import Evaluation
from osora_core.training.job import TrainingJob
from osora_core.training.losses import gain, preference_figures
from osora_core.training.passes import Passes


def evaluate(job: TrainingJob, passes: Passes) -> Evaluation:
    """The job as it is now on all of its validation rows, of which there is at least one.

    A row is an exact match if every counted token (of the preferred answer) is the likeliest at its place: then greedy
    decoding gives the row's answer.
    """
    rows = sequences(job.valid)
    losses, hits = passes.scores([(row, index) for index, row in enumerate(rows)], [job.slot] * len(rows))
    exact = _exact(rows[: len(job.valid)], hits)
    if job.spec.method == "dpo":
        found = preference_figures(gain(job, losses, job.reference.losses(job.valid, passes)))
        return Evaluation(job.step, job.total_steps, found.loss, found.accuracy, exact, found.reward_margin)
    counted = sum(row.loss_tokens for row in rows)
    loss, accuracy = losses.sum().item() / counted, hits.sum().item() / counted
    return Evaluation(job.step, job.total_steps, loss, accuracy, exact)


def _exact(rows: Sequence[Example], hits: Tensor) -> float:
    right = [row.loss_tokens == int(found) for row, found in zip(rows, hits.tolist(), strict=False)]
    return sum(right) / len(rows)
