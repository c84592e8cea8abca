"""What is measured of a job on rows that it is not trained on."""

from collections.abc import Sequence

from osora_core.data import Row, sequences
from osora_core.training.curve import Evaluation
from osora_core.training.exact_match import exact_matches
from osora_core.training.job import TrainingJob
from osora_core.training.passes import Passes


def evaluate(job: TrainingJob, passes: Passes) -> Evaluation:
    """The job as it is now on all of its validation rows, of which there is at least one.

    A row is an exact match if a request for each of its answers (of a preference's preferred one) gets it: see
    osora_core.training.exact_match.
    """
    rows = sequences(job.valid)
    scores = passes.scores([(row, index) for index, row in enumerate(rows)], [job.slot] * len(rows))
    found = job.method.figures(job, job.valid, scores.losses, scores.hits, passes)
    right = exact_matches(rows[: len(job.valid)], scores, job.slot, passes)
    exact = sum(right) / len(right)
    return Evaluation(job.step, job.total_steps, found.loss, found.accuracy, exact, found.reward_margin)


def mean_losses(job: TrainingJob, rows: Sequence[Row], slots: Sequence[int], passes: Passes) -> list[float]:
    """The method's loss of each slot on the same rows, in common passes."""
    read = sequences(rows)
    items = [(row, index) for index, row in enumerate(read * len(slots))]
    scores = passes.scores(items, [slot for slot in slots for _ in read])
    by_slot = zip(scores.losses.view(len(slots), -1), scores.hits.view(len(slots), -1), strict=True)
    return [job.method.figures(job, rows, of_slot, right, passes).loss for of_slot, right in by_slot]


def probe(jobs: Sequence[TrainingJob], passes: Passes) -> list[float]:
    """Of each job the summed loss, in nats, of one of its sequences, in common passes: whether the model still computes
    numbers with it."""
    items = [(job.train[0].sequences[0], index) for index, job in enumerate(jobs)]
    losses: list[float] = passes.scores(items, [job.slot for job in jobs]).losses.tolist()
    return losses
