"""What a job can do after so many steps, seen in what it says."""

from torch import Tensor

from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from osora_core.training.job import Samples, TrainingJob


def sample(job: TrainingJob, runtime: Runtime, row: Tensor) -> Samples:
    """What the job, whose row this is, says to its prompts: greedy, and at most `job.sample_tokens` tokens each.

    They decode side by side and nothing else happens meanwhile, so they should be few and short. The texts are those
    that an inference server would give.
    """
    adapter = AdapterRow(f"{job.id}@{job.step}", row, job.spec.rank, job.spec.mix)
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
