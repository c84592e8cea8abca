"""The training engine: each step is one optimizer step of every active job, run through the model together."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice

from torch import Tensor

from osora_core.bank import Bank
from osora_core.data import Row
from osora_core.errors import DataError, OutOfSlots, UserError
from osora_core.runtime import Runtime
from osora_core.training.checkpoint import Checkpoint
from osora_core.training.errors import DeviceLostError, DuplicateJob, NonFiniteLoss
from osora_core.training.evaluation import evaluate, probe
from osora_core.training.job import Outcome, TrainingJob
from osora_core.training.memory import Memory
from osora_core.training.methods import Figures
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
        self._require_trainable(job)
        basis, spec = self.runtime.basis, job.spec
        state = job.resume
        if state is not None and state.identity != job.identity(basis):
            raise UserError("the checkpoint belongs to another spec, dataset or basis", param="checkpoint")
        start = job.start_row(basis)  # which raises before anything is taken
        if job.slots_beside and self.bank.free <= job.slots_beside:
            raise OutOfSlots(
                f"a job by the method {spec.method} that begins with an adapter takes {1 + job.slots_beside} slots of "
                f"the bank, of which {self.bank.free} are free"
            )
        self.memory.admit([job], list(self.jobs.values()))
        job.slot = self.bank.acquire()
        self.bank.write(job.slot, start if state is None else state.values, rank=spec.rank, mix=spec.mix)
        job.hold_reference(self.bank)
        scale = row_scale(spec, basis)
        if state is None:
            self.optimizer.begin(job.slot, scale)
        else:
            self.optimizer.begin(job.slot, scale, state.first, state.second)
            job.step, job.trained_tokens, job.curve = state.step, state.trained_tokens, state.curve.copy()
            job.best, job.sampled_at = state.best, state.step or -1
            job.checkpointed = (state.step, time.monotonic())
        self.jobs[job.id] = job

    def _require_trainable(self, job: TrainingJob) -> None:
        """Raises UserError for a spec or rows that this base cannot train."""
        runtime, spec, basis = self.runtime, job.spec, self.runtime.basis
        if spec.rank > basis.rank:
            raise UserError(f"rank {spec.rank} is above this base's basis rank {basis.rank}", param="osora.rank")
        unknown = set() if spec.target_modules == "all-linear" else set(spec.target_modules) - set(basis.target_modules)
        if unknown:
            raise UserError(
                f"this base has no module {sorted(unknown)[0]!r}",
                param="osora.target_modules",
                next_action=f"choose from {', '.join(basis.target_modules)}",
            )
        line, tokens = job.facts.longest
        if tokens > runtime.max_length:
            raise DataError(
                f"the row is {tokens} tokens long, and this base reads at most {runtime.max_length}",
                line=line,
                next_action="shorten or split the row",
            )
        if job.prompts and not runtime.is_whole:
            raise UserError(
                "samples need a base that lies on one device, and this worker's is sharded",
                param="osora.sample_prompts",
                next_action="submit the job without them",
            )

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
        self.optimizer.end(job.slot)
        job.let_go_reference(self.bank)

    def step(self) -> bool:
        """One optimizer step of every active job whose turn it is (see `Rounds`); False if there is none."""
        self._each(self._measure)  # those that have just joined, before their first step
        self._train([job for job in self.jobs.values() if not job.done])  # one may have been resumed where it ends
        self._each(self._measure)  # before its checkpoint, part of which that is; and it may end the job
        self._probe()
        self._each(self._settle)
        for action in list(self.after_step.values()):
            action(self)
        return bool(self.jobs)

    def _each(self, action: Callable[[TrainingJob], None]) -> None:
        for job in list(self.jobs.values()):
            self._guard(job, action)

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
        """Passes and optimizer step of the jobs whose turn it is. One that has no finite result ends, and alone."""
        started = time.monotonic()
        parts = self._contributions(self._whose_turn(jobs))
        if not parts:
            return
        passed = self._backward(parts)
        rates = {job.id: job.learning_rate for job, _, _ in passed}
        finite = self.optimizer.step([RowStep(j.slot, rates[j.id], j.step, j.spec.max_grad_norm) for j, _, _ in passed])
        seconds, tokens = time.monotonic() - started, sum(part.tokens for _, part in parts)
        for (job, figures, count), is_finite in zip(passed, finite.tolist(), strict=True):
            if is_finite:
                job.observer.progress(job.advance(figures, count, rates[job.id], seconds, share=count / tokens))
            else:
                message = f"the gradient or the adapter became infinite or nan at step {job.step + 1}"
                self._drop(job, NonFiniteLoss.at(message))

    def _whose_turn(self, jobs: Sequence[TrainingJob]) -> list[tuple[TrainingJob, list[Row]]]:
        """The jobs that step, with their batches."""
        batches: dict[str, list[Row]] = {}
        for job in jobs:
            self._guard(job, lambda job: batches.update({job.id: job.next_batch()}))
        jobs = [job for job in jobs if job.id in batches]
        chosen = self.rounds.choose(jobs, [sum(map(len, batches[job.id])) for job in jobs])
        return [(jobs[index], batches[jobs[index].id]) for index in chosen]

    def _contributions(self, stepping: Sequence[tuple[TrainingJob, Sequence[Row]]]) -> list[Part]:
        """What each job brings. One that has gone wrong already brings nothing, and has ended."""
        parts, errors = contribute(self.passes, stepping, apart=self.apart)
        for job, _ in stepping:
            if job.id in errors:
                self._drop(job, errors[job.id])
        return [(job, part) for job, part in parts if part.known is None or self._is_finite(job, part.known)]

    def _backward(self, parts: Sequence[Part]) -> list[tuple[TrainingJob, Figures, int]]:
        """Leave all gradients in the bank. Returns the jobs that can go on, with the figures and tokens of the step."""
        sums, errors = backward(self.passes, parts, apart=self.apart)
        losses, hits = map(iter, sums.tolist())
        passed: list[tuple[TrainingJob, Figures, int]] = []
        for job, part in parts:
            count = len(part.shares)
            figures = part.figures(list(islice(losses, count)), list(islice(hits, count)))
            if job.id in errors:
                self._drop(job, errors[job.id])
            elif self._is_finite(job, figures):
                passed.append((job, figures, part.tokens))
        return passed

    def _is_finite(self, job: TrainingJob, figures: Figures) -> bool:
        """Whether the job can go on; else it has been dropped."""
        if math.isfinite(figures.loss):
            return True
        self._drop(job, NonFiniteLoss.at(f"the loss became {figures.loss} at step {job.step + 1}"))
        return False

    def _measure(self, job: TrainingJob) -> None:
        """Whatever is due of it at this boundary between steps."""
        started = time.monotonic()
        if job.wants_evaluation():
            evaluation = evaluate(job, self.passes)
            job.evaluated(evaluation)
            if job.spec.keep == "best" and job.curve.best is evaluation and job.step > 0:
                job.best = self.bank.read(job.slot)
            job.observer.evaluated(evaluation)
        if job.wants_samples():
            job.sampled_at = job.step
            job.observer.sampled(sample(job, self.runtime, self.bank.read(job.slot)))
        job.compute_seconds += time.monotonic() - started

    def _probe(self) -> None:
        """End the jobs with whose last state the model computes no numbers. All are asked in common passes: each would
        take as long by itself."""
        ending = [job for job in self.jobs.values() if job.ends_unmeasured]
        try:
            if all(map(math.isfinite, probe(ending, self.passes) if ending else ())):
                return
        except DeviceLostError:
            raise
        except Exception:
            pass
        for job in ending:
            self._guard(job, self._probe_alone)

    def _probe_alone(self, job: TrainingJob) -> None:
        (loss,) = probe([job], self.passes)
        if not math.isfinite(loss):
            raise NonFiniteLoss.at(f"the loss became {loss} after the last step")

    def _settle(self, job: TrainingJob) -> None:
        """What becomes of it after this step."""
        if job.wants_checkpoint():
            job.checkpointed = (job.step, time.monotonic())
            job.observer.checkpoint(self._checkpoint(job))
        if job.done:
            row, step = self._kept(job)
            outcome = Outcome(job.adapter(row, self.runtime), step, job.step, job.trained_tokens, job.curve)
            self.discard(job)
            job.observer.finished(outcome)

    def _kept(self, job: TrainingJob) -> tuple[Tensor, int]:
        """The row that becomes the adapter, and the step after which it was the job's."""
        best = job.curve.best
        if best is None or job.keeps_last:
            return self.bank.read(job.slot), job.step
        if best.step == 0:
            return job.start_row(self.runtime.basis), 0
        assert job.best is not None
        return job.best, best.step

    def _checkpoint(self, job: TrainingJob) -> Checkpoint:
        first, second = self.optimizer.read(job.slot)
        return Checkpoint(
            step=job.step,
            trained_tokens=job.trained_tokens,
            identity=job.identity(self.runtime.basis),
            spec=job.spec.to_dict(),
            values=self.bank.read(job.slot),
            first=first,
            second=second,
            curve=job.curve.copy(),
            best=job.best,
            ends_epoch=job.ends_epoch,
        )
