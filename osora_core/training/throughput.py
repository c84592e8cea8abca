"""What a sweep would cost here: an engine's own steps, timed with one copy of a batch and with several."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch

from osora_core.bank import Bank
from osora_core.data import Row, sequences
from osora_core.errors import OutOfSlots
from osora_core.training.job import TrainingJob
from osora_core.training.memory import Memory
from osora_core.training.methods import contributions
from osora_core.training.passes import Passes
from osora_core.training.recovery import backward_once
from osora_core.training.sweep_state import halvings

CHEAP = 1.5
"""A sweep is cheap if it takes at most so many times as long as a single job."""
_REPEATS = 2


class Throughput:
    """Seconds of all passes that a step of a job takes in so many copies, and of a row to choose by.

    Measured when first asked for, in slots that are free, which it leaves as they were; known from then on for batches
    of the same method and about the same shape (rows and longest row to the next power of two). `apart`: whether jobs
    share no passes, as in `TrainingEngine`.
    """

    def __init__(self, passes: Passes, memory: Memory, *, apart: bool) -> None:
        self._passes = passes
        self._bank = passes.bank
        self._memory = memory
        self._apart = apart
        self._seconds: dict[tuple[str, int, int, int], float] = {}
        self._choosing: dict[tuple[str, int, int], float] = {}

    def cost_of_sweep(self, job: TrainingJob, members: int, choice: Sequence[Row]) -> float:
        """How many times as long as `job`, which has not joined, a sweep takes that chooses by the rows `choice`.

        Stops measuring once it knows that this is more than CHEAP: the answer is then a lower bound, because a step
        takes the more for each further copy, the fewer idle units the device has left. Raises OutOfSlots where fewer
        than `members` slots are free, or memory is too small for so many.
        """
        if self._bank.free < members:
            raise OutOfSlots(f"{members} slots are needed to measure a sweep, and {self._bank.free} are free")
        if self._memory.needed([job] * members) > self._memory.limit:
            raise OutOfSlots(f"a sweep of {members} does not fit the memory")
        batch, known = job.next_batch(), dict[int, float]()
        for copies in sorted({1, 2, members}):
            known[copies] = self._measured(job, batch, copies)
            cost = relative_cost(members, job.total_steps, known)
            if len(known) > 1 and cost > CHEAP:
                return cost
        # Last, because it is the longest: whole passes, of which a job may have fewer itself.
        choosing = len(choice) * self._row_to_choose_by(job, choice, members) if choice else 0.0
        return relative_cost(members, job.total_steps, known, choosing)

    def _measured(self, job: TrainingJob, batch: Sequence[Row], copies: int) -> float:
        rows, longest = (2 ** math.ceil(math.log2(size)) for size in (len(batch), max(map(len, batch))))
        shape = (job.spec.method, rows, longest, copies)
        if shape not in self._seconds:
            self._seconds[shape] = _seconds(self._bank, copies, lambda slots: self._step(job, batch, slots))
        return self._seconds[shape]

    def _row_to_choose_by(self, job: TrainingJob, choice: Sequence[Row], members: int) -> float:
        """Seconds a member and row, where all members share passes that are full."""
        longest = 2 ** math.ceil(math.log2(max(map(len, choice))))
        shape = (job.spec.method, longest, members)
        if shape not in self._choosing:
            rows = choice[: max(1, self._passes.token_budget // (longest * members))]
            read = sequences(rows)

            def choose(slots: Sequence[int]) -> None:
                self._passes.scores([(row, index) for index in range(members) for row in read], slots)

            self._choosing[shape] = _seconds(self._bank, members, choose) / (members * len(rows))
        return self._choosing[shape]

    def _step(self, job: TrainingJob, batch: Sequence[Row], slots: Sequence[int]) -> None:
        """All passes of a step of copies of a job."""
        twins = [copy.copy(job) for _ in slots]
        for twin, slot in zip(twins, slots, strict=True):
            twin.slot = slot
        # Preferences are compared with the bare base here: an adapter would cost as much.
        parts = list(zip(twins, contributions([(twin, batch) for twin in twins], self._passes), strict=True))
        backward_once(self._passes, parts, parts, self._apart).tolist()


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


def _seconds(bank: Bank, copies: int, work: Callable[[Sequence[int]], None]) -> float:
    """What `work` takes in so many slots: the fastest of a few, after one that is not counted. It waits for the device.

    Raises OutOfSlots where memory is too small for it.
    """
    slots = [bank.acquire() for _ in range(copies)]
    taken = []
    try:
        for _ in range(1 + _REPEATS):
            started = time.perf_counter()
            work(slots)
            taken.append(time.perf_counter() - started)
    except torch.OutOfMemoryError as error:
        raise OutOfSlots(f"{copies} copies of a batch do not fit the device's memory") from error
    finally:
        bank.take_grads()
        for slot in slots:
            bank.release(slot)
    return min(taken[1:])
