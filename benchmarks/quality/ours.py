"""OSoRA as the service trains it: all runs as jobs of one engine, in passes that hold as many rows of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.ending import Ending
from benchmarks.quality.data import even_slices
from benchmarks.quality.learned import Diverged, Learned, Score, budget
from osora_core.bank import Bank
from osora_core.data import Example
from osora_core.runtime import Runtime
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from osora_core.training.errors import NotEnoughMemory
from osora_core.training.passes import NOBODY, Item, Passes

TOKENS = 2
"""Times as many go through the model at once as of a peer: the backward pass keeps z alone, and no inputs."""


class EvenPasses(Passes):
    """Passes with as many rows of one run as of any other, so that each layer makes one batched product for all.

    By length alone each would have its own number, and products and launches of its own.
    """

    def groups(self, items: Sequence[Item], slots: Sequence[int], own: Mapping[int, int] = NOBODY) -> list[list[Item]]:
        runs: dict[int, list[Item]] = {}
        for item in items:
            runs.setdefault(item[1], []).append(item)
        if own or len({len(run) for run in runs.values()}) > 1:
            return super().groups(items, slots, own)
        ordered = [sorted(run, key=lambda item: len(item[0]), reverse=True) for run in runs.values()]
        lengths = torch.tensor([[len(row) for row, _ in run] for run in ordered])
        slices = even_slices(lengths, self.token_budget, TOKENS * budget(self.runtime.device)[1])
        return [[item for run in ordered for item in run[start:stop]] for start, stop in slices]


@dataclass(frozen=True)
class Osora:
    """OSoRA and its mix on a runtime whose basis is of the rank that is trained."""

    runtime: Runtime

    def learn(
        self, train: Sequence[Example], measured: Mapping[str, Sequence[Example]], specs: Sequence[JobSpec]
    ) -> list[Learned | Diverged]:
        observers = [Ending() for _ in specs]
        waiting = list(zip(specs, observers, strict=True))
        first: TrainingJob | None = None
        while waiting:
            engine = self._engine(len(waiting))
            joined = 0
            for spec, observer in waiting:
                job = TrainingJob(str(joined), spec, train, observer, same_rows_as=first)
                first = first or job
                try:
                    engine.add(job)
                except NotEnoughMemory:  # as many at once as fit, and then the others
                    break
                joined += 1
            while engine.step():
                pass
            waiting = waiting[joined:]
        scores = self._measure([o.outcome.adapter for o in observers if o.outcome is not None], measured)
        found = iter(scores)
        return [
            Diverged(str(observer.error)) if observer.outcome is None else self._learned(spec, observer, next(found))
            for spec, observer in zip(specs, observers, strict=True)
        ]

    def _engine(self, jobs: int) -> TrainingEngine:
        tokens = TOKENS * budget(self.runtime.device)[0]
        return TrainingEngine(self.runtime, max_jobs=jobs, token_budget=tokens, passes=EvenPasses)

    def _learned(self, spec: JobSpec, observer: Ending, scores: Mapping[str, Score]) -> Learned:
        adapter = observer.outcome.adapter
        unused = {"both": None, "s": adapter.delta, "o": adapter.sigma}[spec.train]
        parameters = adapter.parameters - (_count(unused) if unused else 0)
        return Learned(scores, parameters, len(adapter.files()["adapter_model.safetensors"]))

    def _measure(self, adapters: Sequence[Any], measured: Mapping[str, Sequence[Example]]) -> list[dict[str, Score]]:
        """Scores of each adapter; all answer together, each in a slot of one bank."""
        runtime = self.runtime
        if not adapters:
            return []
        bank = Bank(runtime.basis, len(adapters), device=runtime.device)
        for slot, adapter in enumerate(adapters, start=1):
            bank.write(slot, adapter.to_row(runtime.basis), adapter.rank, adapter.mix_size)
        passes = Passes(runtime, bank, TOKENS * budget(runtime.device)[0])
        scores: list[dict[str, Score]] = [{} for _ in adapters]
        for name, rows in measured.items():
            items = [(row, slot * len(rows) + i) for slot in range(len(adapters)) for i, row in enumerate(rows)]
            slots = [slot for slot in range(1, len(adapters) + 1) for _ in rows]
            found = passes.scores(items, slots)
            losses = found.losses.view(len(adapters), -1)
            counts = torch.tensor([row.loss_tokens for row in rows])
            right = found.hits.view(len(adapters), -1) == counts
            for own, loss, is_right in zip(scores, losses.tolist(), right.tolist(), strict=True):
                own[name] = Score.of(loss, is_right, int(counts.sum()))
        return scores


def _count(vectors: Mapping[str, Tensor]) -> int:
    return sum(vector.numel() for vector in vectors.values())
