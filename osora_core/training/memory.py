"""What training jobs take of a device's memory beyond base, basis and bank, told before they join.

Rows go through the model in passes of bounded size, one after another, so that the largest pass decides: the values
that it keeps for its backward pass, measured once on the base, and the logits of the tokens that count. Each job adds
what the optimizer works on. So a worker can tell from its memory how many jobs to take at once.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, UntypedStorage
from torch.distributed.tensor import DTensor

from osora_core import out_of_memory
from osora_core.bank import Bank
from osora_core.errors import MemoryTooSmall
from osora_core.linear import use_slots
from osora_core.mix import mix_length
from osora_core.operator import runs
from osora_core.runtime import Runtime, threads
from osora_core.training.errors import JobTooLarge, NotEnoughMemory
from osora_core.training.job import TrainingJob
from osora_core.training.passes import Item, Passes
from osora_core.training.spec import listed

SHARE = 0.8
"""Of the memory that is free when the engine begins: the rest is for fragments and for what is not foreseen."""
# Of a sharded base, layers that are gathered at once: this and the last one, as they arrive and as they are used.
_GATHERED_LAYERS = 4
# float32 values for every value of a job's row that a step of the optimizer holds at once.
_OPTIMIZER_ROWS = 10
# float32 values for every value of a slot, taken or free: vectors, two moments and scale, which lie there for good, and
# gradients, in the layers' views and gathered.
_LASTING_ROWS, _GRADIENT_ROWS = 4, 2
# float32 values for every value of a job's mix, which is there as long as the job is: the same as of a slot; the copy
# that a pass works with and its gradients, in the layers' views and gathered; and one for the optimizer's step.
_MIX_ROWS = _LASTING_ROWS + _GRADIENT_ROWS + 4
# The mix of a job's reference: as it is, and as passes work with it.
_REFERENCE_ROWS = 2
# Values of the widest layer that its backward pass works on at once.
_WORKING = 6
_PROBE = (32, 96)
MOST_JOBS = 64
"""At once in a worker, unless an operator says otherwise: the most that `benchmarks.fusion` measures side by side."""
# What "auto" batches of small datasets are, of rows that are as long as a question with its answer.
_TYPICAL_ROWS, _TYPICAL_TOKENS = 4, 256
_FEW_JOBS = 8
_SHORT_TOKENS = 32


def free_bytes(passes: Passes) -> float:
    """Bytes for bank and jobs; of several devices that make passes together, on the one that has the fewest."""
    return passes.available_bytes() * SHARE - _GATHERED_LAYERS * passes.runtime.gathered_bytes


class Memory:
    """Estimates for one device, or for each of several; `limit` bytes are there for all jobs together.

    Devices that share out rows have at most as much to do as one that has them all.
    """

    def __init__(self, passes: Passes, limit: float | None = None) -> None:
        runtime, bank = passes.runtime, passes.bank
        self.limit = free_bytes(passes) - _GRADIENT_ROWS * bank.values.nbytes if limit is None else limit
        self._runtime = runtime
        self._budget = passes.token_budget
        self._row_bytes = _OPTIMIZER_ROWS * 4 * runtime.basis.row_length
        short, long = (kept_bytes(runtime, bank, tokens) for tokens in _PROBE)
        widest = max(span.d_out for span in runtime.basis.spans)
        self._token_bytes = (long - short) / (_PROBE[1] - _PROBE[0]) + 4 * _WORKING * widest
        # Logits in the head's precision and their gradient; in float32 logits, their probabilities and gradient.
        vocabulary = int(runtime.config.vocab_size)
        self._counted_bytes = vocabulary * (2 * runtime.model.dtype.itemsize + 3 * 4)

    def needed(self, jobs: Sequence[TrainingJob]) -> int:
        """Bytes for these jobs together."""
        longest = max(job.facts.sequence_tokens for job in jobs)
        batches = sum(job.spec.batch_size * job.facts.row_tokens for job in jobs)
        tokens = max(longest, min(self._budget, batches))
        counted = sum(job.spec.batch_size * job.facts.counted_tokens for job in jobs)
        return self._needed(tokens, counted, len(jobs)) + sum(map(self._of_mix, jobs))

    def _of_mix(self, job: TrainingJob) -> int:
        """Bytes for a job's mix, 0 without one."""
        spans, start = self._runtime.basis.spans, job.start
        own = _MIX_ROWS * mix_length(spans, job.spec.mix)
        if start is None or not job.method.needs_reference:
            return 4 * own
        return 4 * (own + _REFERENCE_ROWS * mix_length(spans, start.mix_size))

    def of_pass(self, group: Sequence[Item]) -> int:
        """Bytes of one pass of these rows."""
        tokens = len(group) * max(len(row) for row, _ in group)
        return self._needed(tokens, sum(row.loss_tokens for row, _ in group), 0)

    def _needed(self, tokens: int, counted: int, jobs: int) -> int:
        """Bytes of passes of up to so many tokens, of which so many count, and of so many jobs' optimizer steps."""
        passing = tokens * self._token_bytes + min(tokens, counted) * self._counted_bytes
        return int(passing + jobs * self._row_bytes)

    def jobs_at_once(self, slots: Callable[[int], int]) -> int:
        """How many jobs to take at once: as many typical ones as fit `limit` beside a bank of `slots(jobs)` slots.

        A typical job's step has four rows of 256 tokens (or as many as the base can read, if these are fewer), all of
        which count. At least 1 and at most MOST_JOBS; on a CPU at most 8, or one a core where there are more: its
        cores are busy with few jobs, and further ones would slow these down where they could wait for another worker.

        Raises MemoryTooSmall where not even a job of one short row has room.
        """
        runtime = self._runtime
        step = _TYPICAL_ROWS * min(_TYPICAL_TOKENS, runtime.max_length)
        most = MOST_JOBS if runtime.device.type == "cuda" else min(MOST_JOBS, max(_FEW_JOBS, threads()))

        def takes(jobs: int, tokens: int) -> int:
            rows = (1 + slots(jobs)) * (_LASTING_ROWS + _GRADIENT_ROWS)
            return self._needed(tokens, tokens, jobs) + 4 * rows * runtime.basis.row_length

        least = takes(1, min(_SHORT_TOKENS, runtime.max_length))
        if least > self.limit:
            raise MemoryTooSmall(
                f"a job on the base {runtime.name!r} takes at least {_gib(least)} of memory, and beside the base "
                f"{_gib(max(0.0, self.limit))} are there",
                next_action=out_of_memory.NEXT,
            )
        fitting = (jobs for jobs in range(most, 1, -1) if takes(jobs, min(self._budget, jobs * step)) <= self.limit)
        return next(fitting, 1)

    def admit(self, joining: Sequence[TrainingJob], others: Sequence[TrainingJob]) -> None:
        """For a job, or all members of a sweep: raises NotEnoughMemory if it has to wait for others to end, JobTooLarge
        if that would not help."""
        first, alone = joining[0], self.needed(joining)
        of_mix = self._of_mix(first)
        if self.needed([first]) - of_mix <= self.limit < self.needed([first]):
            raise JobTooLarge(
                f"the job needs {_gib(self.needed([first]))} of memory, {_gib(of_mix)} of it for its mix of size "
                f"{first.spec.mix}, and {_gib(self.limit)} are there",
                param="osora.mix",
                next_action="train with a smaller mix, or without one",
            )
        if self.needed([first]) > self.limit:
            raise JobTooLarge(
                f"the job needs {_gib(alone)} of memory and {_gib(self.limit)} are there: "
                f"its longest row has {first.facts.sequence_tokens} tokens",
                param="training_file",
                next_action="shorten, split or remove the longest rows",
            )
        if alone > self.limit:
            param, what = listed(job.spec for job in joining)
            raise JobTooLarge(
                f"a sweep of {len(joining)} needs {_gib(alone)} of memory and {_gib(self.limit)} are there",
                param=param,
                next_action=f"list fewer {what}, or one",
            )
        together = self.needed([*others, *joining])
        if together > self.limit:
            raise NotEnoughMemory(f"together with it the jobs need {_gib(together)}, and {_gib(self.limit)} are there")


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"


def kept_bytes(runtime: Runtime, bank: Bank, tokens: int) -> int:
    """Bytes that the model keeps for the backward pass of a row of so many tokens, each storage once."""
    tensors = (*runtime.model.parameters(), *runtime.model.buffers(), bank.values)
    own = {(t.to_local() if isinstance(t, DTensor) else t).untyped_storage().data_ptr() for t in tensors}
    kept: dict[int, UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        # Not the tensor itself: one that keeps its own output would keep itself alive for ever.
        return tensor.detach()

    inputs = torch.zeros(1, tokens, dtype=torch.long, device=runtime.device)
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        use_slots(bank, inputs[0, :1], runs([0])),
    ):
        hidden = runtime.hidden_states(inputs)  # alive until all is counted: a freed address would be used again
    # Layers that were gathered for their turn have given up their storage by now.
    total = sum(storage.nbytes() for storage in kept.values())
    del hidden
    return total
