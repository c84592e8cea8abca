"""What is measured of a job on rows that it is not trained on."""

from collections.abc import Sequence

from torch import Tensor

from osora_core.data import Example, Row, sequences
from osora_core.training.curve import Evaluation
from osora_core.training.job import TrainingJob
from osora_core.training.passes import Passes


def evaluate(job: TrainingJob, passes: Passes) -> Evaluation:
    """The job as it is now on all of its validation rows, of which there is at least one.

    A row is an exact match if every counted token (of the preferred answer) is the likeliest at its place: then greedy
    decoding gives the row's answer.
    """
    rows = sequences(job.valid)
    losses, hits = passes.scores([(row, index) for index, row in enumerate(rows)], [job.slot] * len(rows))
    found = job.method.figures(job, job.valid, losses, hits, passes)
    exact = _exact(rows[: len(job.valid)], hits)
    return Evaluation(job.step, job.total_steps, found.loss, found.accuracy, exact, found.reward_margin)


def mean_losses(job: TrainingJob, rows: Sequence[Row], slots: Sequence[int], passes: Passes) -> list[float]:
    """The method's loss of each slot on the same rows, in common passes."""
    read = sequences(rows)
    items = [(row, index) for index, row in enumerate(read * len(slots))]
    losses, hits = passes.scores(items, [slot for slot in slots for _ in read])
    by_slot = zip(losses.view(len(slots), -1), hits.view(len(slots), -1), strict=True)
    return [job.method.figures(job, rows, of_slot, right, passes).loss for of_slot, right in by_slot]


def probe(job: TrainingJob, passes: Passes) -> float:
    """The summed loss, in nats, of one of its sequences: whether the model still computes numbers with it."""
    losses, _ = passes.scores([(job.train[0].sequences[0], 0)], [job.slot])
    return losses.item()


def _exact(rows: Sequence[Example], hits: Tensor) -> float:
    right = [row.loss_tokens == int(found) for row, found in zip(rows, hits.tolist(), strict=False)]
    return sum(right) / len(rows)
