"""What a job can do after so many steps: its loss, its accuracy and its exact answers on the validation rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from osora_core.data import Example, split_by_tokens
from osora_core.training.curve import Evaluation
from osora_core.training.job import TrainingJob

Forward = Callable[[Sequence[tuple[Example, int]], Sequence[int]], tuple[Tensor, Tensor, Tensor]]
"""From (example, index into the slots) pairs and slots to loss (nats) and correctness of every counted token, and the
index that it came with."""


@torch.no_grad()
def evaluate(job: TrainingJob, forward: Forward, token_budget: int) -> Evaluation:
    """The job as it is now on all of its validation rows, of which there is at least one.

    A row is an exact match if every counted token is the likeliest at its place: then greedy decoding gives the row's
    answer. Rows go through the model in groups of at most `token_budget` tokens.
    """
    rows = list(job.valid)
    slots = [job.slot] * len(rows)
    loss = correct = count = 0.0
    missed: set[int] = set()
    for group in split_by_tokens([(example, index) for index, example in enumerate(rows)], token_budget):
        nll, hits, owners = forward(group, slots)
        loss, correct, count = loss + nll.sum().item(), correct + hits.sum().item(), count + len(nll)
        missed.update(owners[~hits].tolist())
    return Evaluation(job.step, job.total_steps, loss / count, correct / count, 1 - len(missed) / len(rows))
