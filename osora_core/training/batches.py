"""Which jobs take part in a round of the engine, and how their rows go through the model."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from osora_core.data import Example, split_by_tokens
from osora_core.fairness import FairQueue
from osora_core.runtime import Runtime
from osora_core.training.job import TrainingJob

Item = tuple[Example, int]
"""A row, and whose it is: an index into the slots that come with it."""

# On one H200 a pass of 256 tokens through a Llama-8B (218 million weights a layer) takes half as long as one of 4096.
# What is left is launches, which a smaller layer has as many of, up to where its other operations count.
_GPU_PRODUCTS = 2048 * 218_000_000
_GPU_MOST = 32768
_CPU_TOKENS = 128


def pass_tokens(runtime: Runtime) -> int:
    """Tokens that take about as long as it takes to run the model at all: padding up to so many is cheaper than a pass
    of its own."""
    if runtime.device.type == "cpu":
        return _CPU_TOKENS
    layer = runtime.parameters / runtime.model.config.num_hidden_layers
    return min(_GPU_MOST, int(_GPU_PRODUCTS / layer))


def plan(
    items: Iterable[Item], slots: Sequence[int], token_budget: int, pass_tokens: int, own: Mapping[int, int]
) -> list[list[Item]]:
    """The passes of a step: groups of rows of similar length within the budget, shared by all slots.

    `pass_tokens`: padding that is as cheap as another pass. A slot in `own` shares none: its rows go by themselves, in
    groups within the budget that is named there.
    """
    shared: list[Item] = []
    apart: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        (apart[slot] if (slot := slots[item[1]]) in own else shared).append(item)
    groups = split_by_tokens(shared, token_budget, pass_tokens)
    for slot, rows in apart.items():
        groups += split_by_tokens(rows, own[slot], pass_tokens)
    return groups


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
        """Indices, in order, of the jobs that step; `tokens` is what the next step of each reads."""
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
        if len(weights) == 1:
            return math.inf
        return max(self._cheap, min(demand[t] / weights[t] for t in weights) * sum(weights.values()))
