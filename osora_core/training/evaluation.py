"""What an evaluation measures of a job on its validation rows."""

from osora_core.data import sequences
from osora_core.training.curve import Evaluation
from osora_core.training.exact_match import exact_matches
from osora_core.training.job import TrainingJob
from osora_core.training.losses import gain, preference_figures
from osora_core.training.passes import Passes


def evaluate(job: TrainingJob, passes: Passes) -> Evaluation:
    """The job as it is now on all of its validation rows, of which there is at least one.

    A row is an exact match if a request for each of its answers (of a preference's preferred one) gets it: see
    osora_core.training.exact_match.
    """
    rows = sequences(job.valid)
    scores = passes.scores([(row, index) for index, row in enumerate(rows)], [job.slot] * len(rows))
    right = exact_matches(rows[: len(job.valid)], scores, job.slot, passes)
    exact = sum(right) / len(right)
    if job.spec.method == "dpo":
        found = preference_figures(gain(job, scores.losses, job.reference.losses(job.valid, passes)))
        return Evaluation(job.step, job.total_steps, found.loss, found.accuracy, exact, found.reward_margin)
    counted = sum(row.loss_tokens for row in rows)
    loss, accuracy = scores.losses.sum().item() / counted, scores.hits.sum().item() / counted
    return Evaluation(job.step, job.total_steps, loss, accuracy, exact)
