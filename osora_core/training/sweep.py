"""A sweep: one job trains several specs, of other rates, ranks or mixes, on the same data as one fused group, and keeps
the best.

The members are jobs like any other and share the engine's steps. From time to time the worse half of them is discarded
by its loss on rows to choose by (successive halving, Jamieson & Talwalkar 2016), until one is left: the whole costs
little more than a single job wherever that leaves the device idle.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Protocol

import torch

from osora_common.hyperparameters import MAX_CHOICE_ROWS, held_back
from osora_core.basis import Basis
from osora_core.data import Row
from osora_core.errors import OutOfSlots, UserError
from osora_core.training.checkpoint import Checkpoint
from osora_core.training.curve import Evaluation
from osora_core.training.engine import TrainingEngine
from osora_core.training.errors import DuplicateJob, JobTooLarge, NonFiniteLoss
from osora_core.training.evaluation import mean_losses
from osora_core.training.job import Observer, Outcome, Progress, Samples, TrainingJob
from osora_core.training.spec import JobSpec, listed
from osora_core.training.sweep_state import Fate, Member, Rung, SweepCheckpoint, SweepOutcome, family_csv, halvings


class SweepObserver(Observer, Protocol):
    """What a sweep tells its owner: what a job does, of its leading member, and whenever members have gone.

    Its checkpoints are `SweepCheckpoint`s and its outcome is a `SweepOutcome`.
    """

    def narrowed(self, rung: Rung) -> None: ...


def hold_back(examples: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Training rows and rows to choose by: a tenth is held back, at least one and at most MAX_CHOICE_ROWS.

    Which rows depends on the seed and on how many there are. A single row is both trained on and chosen by.
    """
    if len(examples) < 2:
        return list(examples), list(examples)
    held = set(_sample(len(examples), held_back(len(examples), 0), seed))
    return (
        [example for index, example in enumerate(examples) if index not in held],
        [examples[index] for index in sorted(held)],
    )


def choice_of(valid: Sequence[Row], seed: int) -> list[Row]:
    """The validation rows to choose by: all of them, or MAX_CHOICE_ROWS that depend on the seed."""
    return [valid[index] for index in sorted(_sample(len(valid), min(MAX_CHOICE_ROWS, len(valid)), seed))]


def _sample(rows: int, count: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[:count]


class Sweep:
    """Trains `specs` on the data of `job` side by side; `choice` are the rows to choose by.

    The specs differ in nothing but their rates, rank and mix; `job.spec` is the first, which wins ties. A plain object:
    once it has joined an engine, the engine's steps drive it, and its owner hears of it as of a job.
    """

    def __init__(
        self,
        job: TrainingJob,
        specs: Sequence[JobSpec],
        choice: Sequence[Row],
        observer: SweepObserver,
        resume: SweepCheckpoint | None = None,
    ) -> None:
        self.job = job
        self.choice = choice
        self.observer = observer
        self.resume = resume
        self.members = [Member(spec) for spec in specs] if resume is None else list(resume.members)
        self._specs = list(specs)
        self._halvings = halvings(len(specs), job.total_steps)
        self._rung = 0 if resume is None else resume.rung
        self._runs: list[_Run] = []
        self._measuring_seconds = 0.0
        self._holds_reference = False
        self._over = False

    def identity(self, basis: Basis) -> str:
        """sha256 over specs, data, rows to choose by and basis: what a checkpoint must agree on."""
        digest = hashlib.sha256(self.job.identity(basis).encode())
        digest.update(json.dumps([spec.to_identity() for spec in self._specs], sort_keys=True).encode())
        for example in self.choice:
            digest.update(example.content)
        return digest.hexdigest()

    def join(self, engine: TrainingEngine) -> None:
        """Let every member that is in the running join at the next step, or none.

        Raises OutOfSlots when the engine has not as many slots free; NotEnoughMemory, UserError and DuplicateJob as
        `TrainingEngine.add` does.
        """
        if self.job.id in engine.after_step:
            raise DuplicateJob(f"a sweep of the id {self.job.id} is in the engine already")
        if self.resume is not None and self.resume.identity != self.identity(engine.runtime.basis):
            raise UserError("the checkpoint belongs to another sweep, dataset or basis", param="checkpoint")
        self._runs = [_Run(self, index) for index, member in enumerate(self.members) if member.fate is None]
        slots = len(self._runs) + self.job.slots_beside
        if engine.bank.capacity < slots:
            param, what = listed(self._specs)
            raise JobTooLarge(
                f"a sweep of {len(self._runs)} needs {slots} slots, and there are {engine.bank.capacity} here",
                param=param,
                next_action=f"list fewer {what}, or one",
            )
        if engine.bank.free < slots:
            raise OutOfSlots(f"a sweep of {len(self._runs)} needs {slots} slots, and {engine.bank.free} are free")
        engine.memory.admit([run.job for run in self._runs], list(engine.jobs.values()))
        # Beside its members, of whom all may have ended when it compares what they leave.
        self.job.hold_reference(engine.bank)
        self._holds_reference = True
        self._let_speak(self._leader)
        try:
            for run in self._runs:
                engine.add(run.job)
        except Exception:
            self.discard(engine)
            raise
        engine.after_step[self.job.id] = self._after_step

    def leave(self, engine: TrainingEngine) -> SweepCheckpoint | None:
        """Take the members out at a step boundary; the state to continue from, None if the sweep is over."""
        checkpoint = self._checkpoint(engine) if self._is_in(engine) else None
        self.discard(engine)
        return checkpoint

    def discard(self, engine: TrainingEngine) -> None:
        """Take the members out and forget them; doing it twice is no error."""
        if self._is_in(engine):
            del engine.after_step[self.job.id]
        for run in self._runs:
            engine.discard(run.job)
        if self._holds_reference:
            self.job.let_go_reference(engine.bank)
            self._holds_reference = False

    def _is_in(self, engine: TrainingEngine) -> bool:
        """Whether the engine's steps drive this very sweep; another of its id does not count."""
        return engine.after_step.get(self.job.id) == self._after_step

    def fail(self, error: Exception) -> None:
        """End the sweep as a whole, once."""
        if not self._over:
            self._over = True
            self.observer.failed(error)

    @property
    def _contest(self) -> list["_Run"]:
        """The members in the running, the best so far first; of equals the one that was listed first."""
        return sorted((run for run in self._runs if run.member.fate is None), key=lambda run: run.member.loss)

    def _after_step(self, engine: TrainingEngine) -> None:
        """Everything that concerns more than one member, at the boundary between two steps."""
        try:
            if not self._over:
                self._settle(engine)
        except Exception as error:
            self.fail(error)
        if self._over:
            self.discard(engine)

    def _settle(self, engine: TrainingEngine) -> None:
        self._end([run for run in self._contest if run.diverged], "diverged", engine)
        if not self._contest:
            raise self._nobody_left()
        self._halve(engine)
        self._report()
        if any(run.checkpoint_due for run in self._contest):
            self.observer.checkpoint(self._checkpoint(engine))
        if all(run.outcome is not None for run in self._contest):
            self._choose(engine)

    def _halve(self, engine: TrainingEngine) -> None:
        """Discard the worse half wherever every member has come as far as the next halving, or has finished before."""
        if len(self._contest) == 1:
            return
        self._measure([run for run in self._contest if run.outcome is not None], engine)
        while self._rung < len(self._halvings):
            step = self._halvings[self._rung]
            self._measure([run for run in self._contest if run.job.step == step], engine)
            if any(run.outcome is None and step not in run.member.measured for run in self._contest):
                return
            self._rung += 1
            self._end(self._contest[math.ceil(len(self._contest) / 2) :], "discarded", engine, step)

    def _choose(self, engine: TrainingEngine) -> None:
        """All who are left have finished: the best is the sweep's outcome."""
        best, *others = self._contest
        self._end(others, "discarded", engine)
        outcome = best.outcome
        assert outcome is not None
        losses = self._against_the_start(outcome, engine) if outcome.curve.start is None else None
        best.end("chosen", outcome.step)
        self._over = True
        values = {field.name: getattr(outcome, field.name) for field in fields(Outcome)}
        family = family_csv(self.members)
        self.observer.finished(SweepOutcome(**values, spec=best.member.spec, family=family, choice_losses=losses))

    def _against_the_start(self, outcome: Outcome, engine: TrainingEngine) -> tuple[float, float]:
        """Losses on the rows to choose by, of what all members began with and of what the best leaves: the members were
        only compared with each other, and the last one with nobody. In a slot that its end has freed."""
        bank, losses = engine.bank, []
        start, best = self.job.start_row(bank.basis), outcome.adapter.to_row(bank.basis)
        for row, shape in ((start, self.job.spec.shape), (best, (outcome.adapter.rank, outcome.adapter.mix_size))):
            slot = bank.acquire()
            bank.write(slot, row, *shape)
            losses += mean_losses(self.job, self.choice, [slot], engine.passes)
            bank.release(slot)
        before, after = losses
        return before, after

    def _end(self, runs: Sequence["_Run"], fate: Fate, engine: TrainingEngine, step: int | None = None) -> None:
        """Settle what becomes of these: they end where they are, or at a step that they may have gone past."""
        for run in runs:
            run.end(fate, run.job.step if step is None else min(step, run.job.step))
            engine.discard(run.job)
        if runs and self._contest:
            at = max(run.member.ended_at or 0 for run in runs)
            self.observer.narrowed(Rung(at, self.job.total_steps, [member.row() for member in self.members]))

    @torch.no_grad()
    def _measure(self, runs: Sequence["_Run"], engine: TrainingEngine) -> None:
        """The loss of each on the rows to choose by, side by side, unless it has been measured at its step before.

        One that has finished is measured as the adapter that it leaves, in a slot that its end has freed.
        """
        runs = [run for run in runs if run.job.step not in run.member.measured]
        if not runs:
            return
        started, bank = time.monotonic(), engine.bank
        borrowed = {run: bank.acquire() for run in runs if run.outcome is not None}
        for run, slot in borrowed.items():
            assert run.outcome is not None
            adapter = run.outcome.adapter
            bank.write(slot, adapter.to_row(bank.basis), adapter.rank, adapter.mix_size)
        slots = [borrowed.get(run, run.job.slot) for run in runs]
        losses = mean_losses(self.job, self.choice, slots, engine.passes)
        for slot in borrowed.values():
            bank.release(slot)
        for run, loss in zip(runs, losses, strict=True):
            run.member.measured[run.job.step] = loss
        self._end([run for run in runs if not math.isfinite(run.member.measured[run.job.step])], "diverged", engine)
        if not self._contest:
            raise self._nobody_left()
        self._measuring_seconds += time.monotonic() - started

    def _report(self) -> None:
        """Pass on what the leading member has said in this step, at what the whole sweep has cost."""
        leader = self._leader
        seconds = self._measuring_seconds + sum(run.job.compute_seconds for run in self._runs)
        for said in leader.said:
            if isinstance(said, Progress):
                self.observer.progress(replace(said, compute_seconds=seconds))
            elif isinstance(said, Samples):
                self.observer.sampled(said)
            else:
                self.observer.evaluated(said)
        for run in self._runs:
            run.said.clear()
        self._let_speak(self._leader)

    def _let_speak(self, leader: "_Run") -> None:
        """Samples are for people to read: nobody reads the other members'."""
        for run in self._runs:
            run.job.prompts = self.job.prompts if run is leader else ()

    @property
    def _leader(self) -> "_Run":
        """The best of those that still train: what is said of the sweep meanwhile is said of this one."""
        return next((run for run in self._contest if run.outcome is None), self._contest[0])

    def _checkpoint(self, engine: TrainingEngine) -> SweepCheckpoint:
        members = list(self.members)
        for run in self._contest:
            state = run.checkpoint_now(engine)
            members[run.index] = replace(run.member, measured=dict(run.member.measured), state=state)
        leader = members[self._leader.index].state
        assert leader is not None
        return SweepCheckpoint.of(leader, self.identity(engine.runtime.basis), members, self._rung)

    def _nobody_left(self) -> NonFiniteLoss:
        fates = ", ".join(
            f"{member.spec.learning_rate:g} {member.fate} after step {member.ended_at}" for member in self.members
        )
        return NonFiniteLoss(
            f"no learning rate of the sweep is left: {fates}",
            param="osora.learning_rate",
            next_action="submit the job again with lower learning rates",
        )


class _Run:
    """A member while it is in the running: its job in the engine, and what that has said since the last boundary."""

    def __init__(self, sweep: Sweep, index: int) -> None:
        self.index = index
        self.member = sweep.members[index]
        self.job = replace(
            sweep.job,
            id=f"{sweep.job.id}/{index}",
            spec=self.member.spec,
            observer=self,
            party=sweep.job.id,
            resume=self.member.state,
            same_rows_as=sweep.job,
        )
        self.said: list[Progress | Evaluation | Samples] = []
        self.outcome: Outcome | None = None
        self.diverged = False
        self.checkpoint_due = False
        self._sweep = sweep
        self._state = self.member.state

    def end(self, fate: Fate, step: int) -> None:
        self.member.end(fate, step, self.job.curve)

    def checkpoint_now(self, engine: TrainingEngine) -> Checkpoint:
        """Its state at this boundary; no other checkpoint is due before the next one of the whole sweep."""
        self.checkpoint_due = False
        if self._state is None or self._state.step != self.job.step:
            self._state = engine.checkpoint(self.job)
        self.job.checkpointed = (self.job.step, time.monotonic())
        return self._state

    def progress(self, progress: Progress) -> None:
        self.said.append(progress)

    def evaluated(self, evaluation: Evaluation) -> None:
        self.said.append(evaluation)

    def sampled(self, samples: Samples) -> None:
        self.said.append(samples)

    def stepped_down(self, pass_tokens: int) -> None:
        self._sweep.observer.stepped_down(pass_tokens)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoint_due = True
        self._state = checkpoint

    def finished(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def failed(self, error: Exception) -> None:
        if isinstance(error, NonFiniteLoss):
            self.diverged = True
        else:
            self._sweep.fail(error)
