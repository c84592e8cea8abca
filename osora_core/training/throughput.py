"""What a sweep would cost here: told from a job's figures where they tell it, or else from an engine's own steps, timed
with one copy of a batch and with several."""

import copy
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from osora_core.data import Row
from osora_core.errors import OutOfSlots
from osora_core.mix import mix_length
from osora_core.training.errors import JobTooShort
from osora_core.training.job import TrainingJob
from osora_core.training.memory import Memory
from osora_core.training.methods import contributions
from osora_core.training.passes import Passes
from osora_core.training.recovery import backward_once
from osora_core.training.sweep_state import halvings

CHEAP = 1.5
"""A sweep is cheap if it takes at most so many times as long as a single job."""
MEASURING = 0.05
"""Measuring takes at most this share of the time that a single job is expected to take."""
_REPEATS = 2

_Shape = tuple[str, int, int, int, int]
"""What the time of a step goes by: method, mix, rows, longest row and copies."""


class Throughput:
    """Seconds of all passes that a step of a job takes in so many copies.

    Measured when first asked for, in slots that are free, which it leaves as they were; known from then on for batches
    of the same method and mix and about the same shape (rows and longest row to the next power of two). `apart`:
    whether jobs share no passes, as in `TrainingEngine`.
    """

    def __init__(self, passes: Passes, memory: Memory, *, apart: bool) -> None:
        self._passes = passes
        self._bank = passes.bank
        self._memory = memory
        self._apart = apart
        # On a CPU each token costs as much as the first, once they cost more than to run the model at all. A GPU has
        # units to spare well beyond that, but what does not fit a pass takes another.
        self._full = passes.pass_tokens if passes.runtime.device.type == "cpu" else passes.token_budget
        self._seconds: dict[_Shape, float] = {}

    def cost_of_sweep(self, job: TrainingJob, members: int, choice: Sequence[Row]) -> Iterator[float | None]:
        """How many times as long as `job`, which has not joined, a sweep takes that chooses by the rows `choice`.

        The last value is the answer. Before it comes a None ahead of each step that has to be timed, so that whoever
        asks can say so, do something else in between, or ask no further: nothing is held meanwhile.

        Nothing is timed where a single job's step is a full pass: there copies cost as much as the first. What is timed
        ends once the answer is known to be more than CHEAP (it is then a lower bound, because a step takes the more for
        each further copy, the fewer idle units the device has left), and before it would take more than MEASURING of
        the job's own time: that raises JobTooShort. Raises OutOfSlots where fewer than `members` slots are free, or
        memory is too small for so many.
        """
        if self._bank.free < members:
            raise OutOfSlots(f"{members} slots are needed to measure a sweep, and {self._bank.free} are free")
        if self._memory.needed([job] * members) > self._memory.limit:
            raise OutOfSlots(f"a sweep of {members} does not fit the memory")
        batch = job.next_batch()
        tokens = sum(map(len, batch))
        choosing = sum(map(len, choice)) / tokens
        busy = relative_cost(members, job.total_steps, {1: 1.0, members: float(members)}, choosing)
        if self._apart or busy <= CHEAP or tokens >= self._full:
            yield busy
            return
        shapes = {copies: _shape(job, batch, copies) for copies in sorted({1, 2, members})}
        allowance = _Allowance(job.total_steps)
        # Even where copies take no time at all.
        allowance.require(2.0 * sum(shape not in self._seconds for shape in shapes.values()), 1.0)
        known = dict[int, float]()
        for copies, shape in shapes.items():
            if shape not in self._seconds:
                later = 2 * sum(count for count in shapes if count > copies)
                taken = yield from self._taken(job, batch, copies, allowance, known.get(1), later)
                self._seconds[shape] = min(taken[1:])
            known[copies] = self._seconds[shape]
            cost = relative_cost(members, job.total_steps, known)
            if len(known) > 1 and cost > CHEAP:
                yield cost
                return
        # A pass without gradients takes less than a step over as many tokens.
        yield relative_cost(members, job.total_steps, known, choosing * known[members] / members)

    def _taken(
        self,
        job: TrainingJob,
        batch: Sequence[Row],
        copies: int,
        allowance: "_Allowance",
        single: float | None,
        later: int,
    ) -> Generator[None, None, list[float]]:
        """Seconds of two steps of so many copies, of which the first makes the device ready and does not count, or of
        three. `single`: those of a step of one copy, where they are known; `later`: as many of these may be needed
        after that."""
        taken: list[float] = []
        while len(taken) <= _REPEATS:
            alone = single or min(taken, default=1.0)
            if len(taken) > 1 and not allowance.covers((copies + later) * alone, alone):
                break
            allowance.require(copies * alone, alone)
            yield None
            taken.append(self._timed(job, batch, copies))
            # What a device takes to get ready for single steps, the job would wait for in any case.
            allowance.spent = len(taken) * min(taken) if single is None else allowance.spent + taken[-1]
        return taken

    def _timed(self, job: TrainingJob, batch: Sequence[Row], copies: int) -> float:
        """Seconds of a step of so many copies. It waits for the device. Raises OutOfSlots where memory is too small."""
        slots, spec = [self._bank.acquire() for _ in range(copies)], job.spec
        try:
            for slot in slots if spec.mix else ():
                values = torch.zeros(self._bank.values.shape[1] + mix_length(self._bank.basis.spans, spec.mix))
                self._bank.write(slot, values, spec.rank, spec.mix)
            started = time.perf_counter()
            self._step(job, batch, slots)
            return time.perf_counter() - started
        except torch.OutOfMemoryError as error:
            raise OutOfSlots(f"{copies} copies of a batch do not fit the device's memory") from error
        finally:
            self._bank.drop_grads()
            for slot in slots:
                self._bank.release(slot)

    def _step(self, job: TrainingJob, batch: Sequence[Row], slots: Sequence[int]) -> None:
        """All passes of a step of copies of a job."""
        twins = [copy.copy(job) for _ in slots]
        for twin, slot in zip(twins, slots, strict=True):
            twin.slot = slot
        # Preferences are compared with the bare base here: an adapter would cost as much.
        parts = list(zip(twins, contributions([(twin, batch) for twin in twins], self._passes), strict=True))
        backward_once(self._passes, parts, parts, self._apart).tolist()


@dataclass
class _Allowance:
    """What measuring may take: MEASURING of all steps of a single job, however long these turn out to be. `spent`: the
    seconds that it has taken."""

    total_steps: int
    spent: float = 0.0

    def covers(self, further: float, single: float) -> bool:
        """Whether so many seconds more fit, where a single step takes `single`."""
        return self.spent + further <= MEASURING * self.total_steps * single

    def require(self, further: float, single: float) -> None:
        """Raises JobTooShort where they do not."""
        if not self.covers(further, single):
            raise JobTooShort(f"measuring a sweep takes longer than {MEASURING:.0%} of {self.total_steps} steps")


def _shape(job: TrainingJob, batch: Sequence[Row], copies: int) -> _Shape:
    rows, longest = (2 ** math.ceil(math.log2(size)) for size in (len(batch), max(map(len, batch))))
    return job.spec.method, job.spec.mix, rows, longest, copies


def relative_cost(members: int, total_steps: int, seconds: Mapping[int, float], choosing: float = 0.0) -> float:
    """The time of a sweep over that of a single job, by the seconds of a step with some numbers of copies, one among
    them. In between, steps are taken to grow evenly; beyond the last, as they did before it.

    `choosing`: the seconds that it takes to measure a member wherever the worse half goes.
    """
    ends = [0, *halvings(members, total_steps), total_steps]
    alive, total = members, 0.0
    for begin, end in pairwise(ends):
        total += (end - begin) * _interpolated(seconds, alive)
        if end < total_steps:
            total += alive * choosing
        alive = math.ceil(alive / 2)
    return total / (total_steps * seconds[1])


def _interpolated(seconds: Mapping[int, float], copies: int) -> float:
    if copies in seconds or len(seconds) == 1:
        return seconds.get(copies, seconds[1])
    points = sorted(seconds)
    below = max(point for point in points[:-1] if point < copies)
    above = points[points.index(below) + 1]
    slope = (seconds[above] - seconds[below]) / (above - below)
    return seconds[below] + max(0.0, slope) * (copies - below)
