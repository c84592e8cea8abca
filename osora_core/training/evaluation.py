"""What a job can do after so many steps: measured on its validation rows, and seen in what it says."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from osora_core.data import Example, split_by_tokens
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from osora_core.training.curve import Evaluation
from osora_core.training.job import Samples, TrainingJob

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


def sample(job: TrainingJob, runtime: Runtime, row: Tensor) -> Samples:
    """What the job, whose row [P] this is, says to its prompts: greedy, and at most `job.sample_tokens` tokens each.

    They decode side by side and nothing else happens meanwhile, so they should be few and short. The texts are those
    that an inference server would give.
    """
    adapter = AdapterRow(f"{job.id}@{job.step}", row, job.spec.rank)
    rows, params = len(job.prompts), SamplingParams(max_tokens=job.sample_tokens)
    length = max(map(len, job.prompts)) + job.sample_tokens
    engine = InferenceEngine(runtime, rows=rows, adapters=rows, max_length=length, brief=True)
    for index, prompt in enumerate(job.prompts):
        engine.add(Request(str(index), tuple(prompt), params, adapter=adapter))
    texts = [""] * rows
    while engine.busy:
        for output in engine.step():
            if output.error is not None:
                raise output.error
            texts[int(output.request_id)] += output.text
    return Samples(job.step, tuple(texts))
