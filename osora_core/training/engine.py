"""The training engine: each step is one optimizer step of every active job, run through the model together."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice

import torch

from osora_core.bank import Bank
from osora_core.data import Row
from osora_core.errors import OutOfSlots, UserError
from osora_core.runtime import Runtime
from osora_core.training.checkpoint import Checkpoint
from osora_core.training.errors import DeviceLostError, DuplicateJob, NonFiniteLoss
from osora_core.training.evaluation import evaluate
from osora_core.training.job import Outcome, Progress, TrainingJob
from osora_core.training.losses import Figures
from osora_core.training.memory import Memory
from osora_core.training.optimizer import RowAdam, RowStep, row_scale
from osora_core.training.passes import MakePasses, Passes
from osora_core.training.recovery import Part, backward, contribute
from osora_core.training.rounds import Rounds
from osora_core.training.samples import sample
from osora_core.training.throughput import Throughput


class TrainingEngine:
    """Up to `max_jobs` jobs, each a row of one trainable bank.

    A job's batches, loss normalisation, clipping, schedule and optimizer state are its own, and gradients of different
    rows are disjoint: what a job learns does not depend on who shares its steps, beyond floating-point noise.

    In common passes, how far rows are padded and how many of them a product covers decide how its sums are rounded: in
    float32, losses agree with those of the job alone to 1e-3 and adapters to 1e-2 of their norm over tens of steps, and
    often bit for bit, which is not promised. With `apart` no job shares a pass: on a CPU, losses and adapter are those
    of the job alone bit for bit, whoever comes and goes and however often it is resumed, at the speed of one job after
    another.

    A job joins if it fits the memory beside the others (`memory_limit` bytes for all; None: most of what is free).

    A plain object: not thread-safe, does nothing between calls of `step()`.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        max_jobs: int = 8,
        token_budget: int | None = None,
        passes: MakePasses = Passes,
        apart: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        self.runtime = runtime
        self.bank = Bank(runtime.basis, max_jobs, device=runtime.device, trainable=True)
        self.optimizer = RowAdam(self.bank)
        self.passes = passes(runtime, self.bank, token_budget)
        self.rounds = Rounds(self.passes.pass_tokens)
        self.apart = apart
        self.memory = Memory(self.passes, memory_limit)
        self.throughput = Throughput(self.passes, self.memory, apart=apart)
        self.jobs: dict[str, TrainingJob] = {}
        self.after_step: dict[str, Callable[[TrainingEngine], None]] = {}
        """What concerns several jobs: called at the end of each step, by the name of whoever put it there."""

    def add(self, job: TrainingJob) -> None:
        """Let a job join at the next step. Raises OutOfSlots when full, NotEnoughMemory where it has to wait for others
        to end, UserError for a spec this base cannot train, a checkpoint of another job, or one that never fits,
        DuplicateJob where one of its id is there already."""
        if job.id in self.jobs:
            raise DuplicateJob(f"a job of the id {job.id} is in the engine already", next_action="take it out first")
        runtime, spec = self.runtime, job.spec
        basis = runtime.basis
        if spec.rank > basis.rank:
            raise UserError(f"rank {spec.rank} is above this base's basis rank {basis.rank}", param="osora.rank")
        unknown = set() if spec.target_modules == "all-linear" else set(spec.target_modules) - set(basis.target_modules)
        if unknown:
            raise UserError(
                f"this base has no module {sorted(unknown)[0]!r}",
                param="osora.target_modules",
                next_action=f"choose from {', '.join(basis.target_modules)}",
            )
        if job.prompts and not runtime.is_whole:
            raise UserError(
                "samples need a base that lies on one device, and this worker's is sharded",
                param="osora.sample_prompts",
                next_action="submit the job without them",
            )
        state = job.resume
        if state is not None and state.identity != job.identity(basis):
            raise UserError("the checkpoint belongs to another spec, dataset or basis", param="checkpoint")
        start = torch.zeros(basis.row_length) if job.start is None else job.start.to_row(basis)
        compared = spec.method == "dpo"
        if compared and job.start is not None and not job.reference.slot and self.bank.free < 2:
            raise OutOfSlots("preferences that begin with an adapter take two slots of the bank, and one is free")
        self.memory.admit([job], list(self.jobs.values()))
        job.slot = self.bank.acquire()
        self.bank.write(job.slot, start if state is None else state.values, rank=spec.rank)
        if compared:
            job.reference.hold(self.bank, job.start)
        scale = row_scale(spec, basis)
        if state is None:
            self.optimizer.begin(job.slot, scale)
        else:
            self.optimizer.begin(job.slot, scale, state.first, state.second)
            job.step, job.trained_tokens, job.curve = state.step, state.trained_tokens, state.curve.copy()
            job.best, job.sampled_at = state.best, state.step or -1
            job.checkpointed = (state.step, time.monotonic())
        self.jobs[job.id] = job

    def remove(self, job: TrainingJob) -> Checkpoint:
        """Take a job out at a step boundary and return the state it can continue from."""
        checkpoint = self.checkpoint(job)
        self.discard(job)
        return checkpoint

    def holds(self, job: TrainingJob) -> bool:
        """Whether this very job is in the engine; another of its id does not count."""
        return self.jobs.get(job.id) is job

    def checkpoint(self, job: TrainingJob) -> Checkpoint:
        """The state of a job at a step boundary. Raises KeyError if it is not in the engine."""
        if not self.holds(job):
            raise KeyError(job.id)
        return self._checkpoint(job)

    def discard(self, job: TrainingJob) -> None:
        """Take a job out and forget it; one that is not there is no error, and another of its id stays."""
        if not self.holds(job):
            return
        del self.jobs[job.id]
        self.bank.release(job.slot)
        if job.spec.method == "dpo":
            job.reference.let_go(self.bank)

    def step(self) -> bool:
        """One optimizer step of every active job whose turn it is (see `Rounds`); False if there is none."""
        for job in self._active():
            self._guard(job, self._evaluate)
        # One may have been resumed where it ends.
        jobs = [job for job in self._active() if not job.done]
        if jobs:
            self._train(jobs)
        for job in self._active():
            self._guard(job, self._after_step)
        for action in list(self.after_step.values()):
            action(self)
        return bool(self.jobs)

    def _active(self) -> list[TrainingJob]:
        return list(self.jobs.values())

    def _guard(self, job: TrainingJob, action: Callable[[TrainingJob], None]) -> None:
        """Run a job's own part; what goes wrong there ends that job alone. Raises DeviceLostError as the passes do."""
        try:
            action(job)
        except DeviceLostError:
            raise
        except Exception as error:
            self._drop(job, error)

    def _drop(self, job: TrainingJob, error: Exception) -> None:
        self.discard(job)
        job.observer.failed(error)

    def _train(self, jobs: Sequence[TrainingJob]) -> None:
        started = time.monotonic()
        parts = self._parts(jobs)
        sums, errors = backward(self.passes, parts, apart=self.apart)
        losses, hits = map(iter, sums.tolist())
        done: list[tuple[TrainingJob, Figures, int]] = []
        for job, part in parts:
            count = len(part.shares)
            figures = part.figures(list(islice(losses, count)), list(islice(hits, count)))
            if job.id in errors:
                self._drop(job, errors[job.id])
            elif self._is_finite(job, figures):
                done.append((job, figures, part.tokens))
        rates = {job.id: job.spec.learning_rate_at(job.step, job.total_steps) for job, _, _ in done}
        self.optimizer.step([RowStep(j.slot, rates[j.id], j.step, j.spec.max_grad_norm) for j, _, _ in done])
        seconds, tokens = time.monotonic() - started, sum(part.tokens for _, part in parts)
        for job, figures, count in done:
            job.step += 1
            job.trained_tokens += count
            job.compute_seconds += seconds * count / tokens
            job.curve.losses.append(figures.loss)
            job.curve.accuracies.append(figures.accuracy)
            job.observer.progress(
                Progress(
                    step=job.step,
                    total_steps=job.total_steps,
                    epoch=job.step / job.steps_per_epoch,
                    loss=figures.loss,
                    accuracy=figures.accuracy,
                    learning_rate=rates[job.id],
                    trained_tokens=job.trained_tokens,
                    step_tokens=count,
                    step_seconds=seconds,
                    compute_seconds=job.compute_seconds,
                    reward_margin=figures.reward_margin,
                )
            )

    def _parts(self, jobs: Sequence[TrainingJob]) -> list[Part]:
        """What each job whose turn it is brings. One that has gone wrong already brings nothing, and has ended."""
        batches: dict[str, list[Row]] = {}
        for job in jobs:
            self._guard(job, lambda job: batches.update({job.id: job.next_batch()}))
        jobs = [job for job in jobs if job.id in batches]
        chosen = self.rounds.choose(jobs, [sum(map(len, batches[job.id])) for job in jobs])
        stepping = [(jobs[index], batches[jobs[index].id]) for index in chosen]
        parts, errors = contribute(self.passes, stepping, apart=self.apart)
        for job, _ in stepping:
            if job.id in errors:
                self._drop(job, errors[job.id])
        return [(job, part) for job, part in parts if part.known is None or self._is_finite(job, part.known)]

    def _is_finite(self, job: TrainingJob, figures: Figures) -> bool:
        """Whether the job can go on; else it has been dropped."""
        if math.isfinite(figures.loss):
            return True
        message = f"the loss became {figures.loss} at step {job.step + 1}"
        action = "submit the job again with a lower learning rate"
        self._drop(job, NonFiniteLoss(message, param="osora.learning_rate", next_action=action))
        return False

    def _evaluate(self, job: TrainingJob) -> None:
        """Whatever is due of it."""
        started = time.monotonic()
        if job.wants_evaluation():
            evaluation = evaluate(job, self.passes)
            job.curve.evaluations.append(evaluation)
            if job.spec.keep == "best" and job.curve.best is evaluation:
                job.best = self.bank.read(job.slot)
            job.observer.evaluated(evaluation)
        if job.wants_samples():
            job.sampled_at = job.step
            job.observer.sampled(sample(job, self.runtime, self.bank.read(job.slot)))
        job.compute_seconds += time.monotonic() - started

    def _after_step(self, job: TrainingJob) -> None:
        """Measure first: what was measured is part of the checkpoint, and may end the job."""
        self._evaluate(job)
        if job.wants_checkpoint():
            job.checkpointed = (job.step, time.monotonic())
            job.observer.checkpoint(self._checkpoint(job))
        if job.done:
            best = job.curve.best
            row, step = (
                (self.bank.read(job.slot), job.step) if job.best is None or best is None else (job.best, best.step)
            )
            outcome = Outcome(job.adapter(row, self.runtime), step, job.step, job.trained_tokens, job.curve)
            self.discard(job)
            job.observer.finished(outcome)

    def _checkpoint(self, job: TrainingJob) -> Checkpoint:
        return Checkpoint(
            step=job.step,
            trained_tokens=job.trained_tokens,
            identity=job.identity(self.runtime.basis),
            spec=job.spec.to_dict(),
            values=self.bank.read(job.slot),
            first=self.optimizer.first[job.slot].cpu().clone(),
            second=self.optimizer.second[job.slot].cpu().clone(),
            curve=job.curve.copy(),
            best=job.best,
            ends_epoch=job.ends_epoch,
        )
