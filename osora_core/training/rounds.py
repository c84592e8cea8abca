"""Which jobs take a step in a round of the engine."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from osora_core.fairness import FairQueue
from osora_core.training.job import TrainingJob


@dataclass(frozen=True)
class _Turn:
    """A job's place in the queue, or that of jobs which step together."""

    id: str
    tenant: str


class Rounds:
    """Chooses the jobs that take a step in a round, so that no tenant slows another down by the number of its jobs.

    As long as one tenant is alone, or all rows together are about as cheap as a single pass, everyone steps. Else the
    tenants take turns by the tokens that they were given, over their weight, until the one that asks for least has its
    share. A job that sits out a round misses nothing: its next step is the same one a round later.

    `cheap`: tokens that a pass takes hardly any longer for.
    """

    def __init__(self, cheap: int) -> None:
        self._cheap = cheap
        self._costs: dict[str, float] = {}
        self._queue = FairQueue[_Turn](lambda turn: self._costs[turn.id])
        self._waiting: set[str] = set()

    def choose(self, jobs: Sequence[TrainingJob], tokens: Sequence[int]) -> list[int]:
        """Indices, in order, of the jobs that step, none if there are none; `tokens` is what the next step of each
        reads."""
        parties: dict[str, list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            parties[job.party or job.id].append(index)
        sizes = {party: sum(tokens[index] for index in members) for party, members in parties.items()}
        first = {party: jobs[members[0]] for party, members in parties.items()}
        self._costs = {party: size / first[party].weight for party, size in sizes.items()}
        self._bring_up_to_date(first)
        budget, total = self._budget(first, sizes), 0
        chosen: list[int] = []
        while self._waiting and total < budget:
            turn = self._queue.pop()
            self._waiting.remove(turn.id)
            chosen += parties[turn.id]
            total += sizes[turn.id]
        return sorted(chosen)

    def _bring_up_to_date(self, first: Mapping[str, TrainingJob]) -> None:
        for gone in self._waiting - first.keys():
            self._queue.remove(gone)
        for party, job in first.items():
            if party not in self._waiting:
                self._queue.push(_Turn(party, job.tenant))
        self._waiting = set(first)

    def _budget(self, first: Mapping[str, TrainingJob], sizes: Mapping[str, int]) -> float:
        """Tokens of a round: what the tenants' weights make of the smallest demand, or what costs no more anyway."""
        demand: dict[str, float] = defaultdict(float)
        weights: dict[str, float] = {}
        for party, job in first.items():
            demand[job.tenant] += sizes[party]
            weights[job.tenant] = max(weights.get(job.tenant, 0.0), job.weight)
        if len(weights) <= 1:
            return math.inf
        return max(self._cheap, min(demand[t] / weights[t] for t in weights) * sum(weights.values()))
