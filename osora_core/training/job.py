"""One job inside the training engine: its data cursor, its schedule and what it reports."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.basis import Basis
from osora_core.data import Row, batch_order
from osora_core.errors import UserError
from osora_core.mix import mix_length
from osora_core.runtime import Runtime
from osora_core.training.checkpoint import Checkpoint
from osora_core.training.curve import Curve, Evaluation
from osora_core.training.errors import NonFiniteLoss
from osora_core.training.methods import Figures, Method, named
from osora_core.training.reference import Reference
from osora_core.training.rows import RowFacts
from osora_core.training.spec import JobSpec


@dataclass(frozen=True)
class Progress:
    """One finished step. Loss in nats a token over the step's own tokens; `step` counts from 1.

    Tokens are all that were read, prompts included; the loss counts only what the assistant says. `compute_seconds` is
    the job's share, by tokens, of the time that the engine has spent since the job joined it. Of preferences, loss,
    accuracy and `reward_margin` are what they are in an Evaluation.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float
    accuracy: float
    learning_rate: float
    trained_tokens: int
    step_tokens: int
    step_seconds: float
    compute_seconds: float
    reward_margin: float | None = None


@dataclass(frozen=True)
class Samples:
    """What a job says to each of its prompts after `step` steps."""

    step: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a job leaves that ended after `step` steps; its adapter is what it was after `adapter_step`, 0 where no
    state was better than what it began with."""

    adapter: Adapter
    adapter_step: int
    step: int
    trained_tokens: int
    curve: Curve

    @property
    def worse_than_start(self) -> bool:
        """Whether the adapter's validation loss is above that of what the job began with."""
        start, end = self.curve.start, self.curve.at(self.adapter_step)
        return start is not None and end is not None and end.loss > start.loss


class Observer(Protocol):
    """What a job tells its owner. Called on the engine's thread, so each must return at once."""

    def progress(self, progress: Progress) -> None: ...
    def evaluated(self, evaluation: Evaluation) -> None: ...
    def sampled(self, samples: Samples) -> None: ...
    def stepped_down(self, pass_tokens: int) -> None: ...
    def checkpoint(self, checkpoint: Checkpoint) -> None: ...
    def finished(self, outcome: Outcome) -> None: ...
    def failed(self, error: Exception) -> None: ...


@dataclass(eq=False)
class TrainingJob:
    """A job to hand to the engine. `resume` continues it exactly from a checkpoint of the same spec, data and basis.

    `start` is the adapter that it begins with, where that is not the bare base; of the job's rank and of at most its
    mix, whatever its modules.
    `prompts` (token ids) are answered at every evaluation, with at most `sample_tokens` tokens each.
    Where there is more to do than fits a round, tenants share it by `weight`; jobs of one `party` step together.
    A checkpoint is due at the end of every epoch, and before that every `checkpoint_steps` steps and every
    `checkpoint_seconds` seconds, whichever comes first.
    """

    id: str
    spec: JobSpec
    train: Sequence[Row]
    observer: Observer
    valid: Sequence[Row] = ()
    resume: Checkpoint | None = None
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = math.inf
    start: Adapter | None = None
    prompts: Sequence[Sequence[int]] = ()
    sample_tokens: int = 32
    tenant: str = ""
    weight: float = 1.0
    party: str = ""
    stop_after: int | None = None
    """It ends after so many steps, if it has more: the schedule is that of all."""
    same_rows_as: InitVar["TrainingJob | None"] = None
    """Another job with the very same rows, which so need not be read again."""
    facts: RowFacts = field(init=False)
    reference: Reference = field(default_factory=Reference)
    """What it is compared with, if its method compares: the bare base, or `start`."""
    pass_tokens: int | None = field(default=None, init=False)
    """Where its rows have run out of memory: how many tokens of it go through the model at once, by themselves."""
    slot: int = field(default=0, init=False)
    step: int = field(default=0, init=False)
    trained_tokens: int = field(default=0, init=False)
    compute_seconds: float = field(default=0.0, init=False)
    curve: Curve = field(default_factory=Curve, init=False)
    sampled_at: int = field(default=-1, init=False)
    _identity: str | None = field(default=None, init=False)
    best: Tensor | None = field(default=None, init=False)
    """The row at the lowest validation loss so far, where the spec keeps the best and that is not the start's."""
    checkpointed: tuple[int, float] = field(default=(0, 0.0), init=False)

    def __post_init__(self, same_rows_as: "TrainingJob | None") -> None:
        self.facts = self._read_rows() if same_rows_as is None else same_rows_as.facts
        if self.spec.early_stopping_patience is not None and not (self.valid and self.spec.evaluate == "epoch"):
            raise UserError(
                "early stopping goes by the validation loss, and nothing is validated",
                param="osora.early_stopping_patience",
                next_action="name a validation file and leave `evaluate` at epoch, or leave out the patience",
            )
        if self.start is not None and self.start.rank != self.spec.rank:
            raise UserError(
                f"the adapter to begin with has rank {self.start.rank}, the job {self.spec.rank}",
                param="osora.rank",
                next_action=f"train with rank {self.start.rank}: a job keeps the rank of what it begins with",
            )
        if self.start is not None and self.start.mix_size > self.spec.mix:
            raise UserError(
                f"the adapter to begin with has a mix of size {self.start.mix_size}, the job one of {self.spec.mix}",
                param="osora.mix",
                next_action=f"train with a mix of {self.start.mix_size} or more: what it has learned is not cut off",
            )
        self.checkpointed = (0, time.monotonic())

    def _read_rows(self) -> RowFacts:
        if not self.train:
            raise UserError("the training file has no rows", param="training_file")
        kind = self.method.row_type
        stray = next((row for row in (*self.train, *self.valid) if not isinstance(row, kind)), None)
        if stray is not None:
            raise UserError(
                f"the method {self.spec.method} learns from rows of the type {kind.__name__}, and line {stray.line} is "
                f"of the type {type(stray).__name__}",
                param="method",
            )
        return RowFacts.of(self.train, self.valid)

    @property
    def method(self) -> Method:
        return named(self.spec.method)

    @property
    def slots_beside(self) -> int:
        """How many slots of the bank it takes beside its own: one for a reference that is an adapter and not held."""
        return int(self.method.needs_reference and self.start is not None and not self.reference.slot)

    def hold_reference(self, bank: Bank) -> None:
        """Have what it is compared with in the bank, if its method compares. Raises OutOfSlots if no slot is free."""
        if self.method.needs_reference:
            self.reference.hold(bank, self.start)

    def let_go_reference(self, bank: Bank) -> None:
        """Undo one `hold_reference`."""
        if self.method.needs_reference:
            self.reference.let_go(bank)

    @cached_property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.spec.batch_size)

    @property
    def total_steps(self) -> int:
        return self.spec.steps(len(self.train))

    @property
    def ends_epoch(self) -> bool:
        return self.step > 0 and self.step % self.steps_per_epoch == 0

    @property
    def done(self) -> bool:
        """At the last step, or where it is to stop, or when the validation loss has not fallen for as many epochs as
        the spec is patient."""
        patience = self.spec.early_stopping_patience
        last = self.total_steps if self.stop_after is None else min(self.stop_after, self.total_steps)
        return self.step >= last or (patience is not None and self.curve.since_best >= patience)

    @property
    def keeps_last(self) -> bool:
        """Whether its last state becomes the adapter: as its spec says, or because no other was measured."""
        return self.spec.keep == "last" or self.curve.best is None

    @property
    def ends_unmeasured(self) -> bool:
        """Whether it ends here with a state that no evaluation has seen."""
        return self.done and self.keeps_last and self.curve.evaluated_at != self.step

    def identity(self, basis: Basis) -> str:
        """sha256 over spec, data, basis and start: what a checkpoint must agree on to continue exactly."""
        if self._identity is not None:
            return self._identity
        digest = hashlib.sha256(json.dumps(self.spec.to_identity(), sort_keys=True).encode())
        digest.update(basis.fingerprint.encode())
        digest.update(self.facts.digest.encode())
        if self.start is not None:
            digest.update(self.start.to_zip())
        self._identity = digest.hexdigest()
        return self._identity

    @property
    def learning_rate(self) -> float:
        """That of its next step."""
        return self.spec.learning_rate_at(self.step, self.total_steps)

    def advance(self, figures: Figures, tokens: int, rate: float, seconds: float, share: float) -> Progress:
        """Count a step that has been made, of so many tokens at this rate; `share` of its `seconds` was the job's."""
        self.step += 1
        self.trained_tokens += tokens
        self.compute_seconds += seconds * share
        self.curve.losses.append(figures.loss)
        self.curve.accuracies.append(figures.accuracy)
        return Progress(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.step / self.steps_per_epoch,
            loss=figures.loss,
            accuracy=figures.accuracy,
            learning_rate=rate,
            trained_tokens=self.trained_tokens,
            step_tokens=tokens,
            step_seconds=seconds,
            compute_seconds=self.compute_seconds,
            reward_margin=figures.reward_margin,
        )

    def evaluated(self, evaluation: Evaluation) -> None:
        """Keep an evaluation. Raises NonFiniteLoss for one that is no number: nothing can be chosen by it."""
        if not math.isfinite(evaluation.loss):
            if self.step > 0:
                raise NonFiniteLoss.at(f"the validation loss became {evaluation.loss} after step {self.step}")
            raise NonFiniteLoss(
                f"the validation loss is {evaluation.loss} before the first step",
                param="model" if self.start is None else "osora.from_adapter",
                next_action=f"begin with another {'base' if self.start is None else 'adapter'}",
            )
        self.curve.evaluations.append(evaluation)

    def next_batch(self) -> list[Row]:
        """The rows of the next step: a function of seed and step alone."""
        epoch, index = divmod(self.step, self.steps_per_epoch)
        if index == 0 or not hasattr(self, "_order"):
            self._order = batch_order(len(self.train), self.spec.batch_size, self.spec.seed, epoch)
        return [self.train[row] for row in self._order[index]]

    def start_row(self, basis: Basis) -> Tensor:
        """The row [P] ([P + M] with a mix) that it begins with: zero for the bare base."""
        mix = self.spec.mix
        if self.start is None:
            return torch.zeros(basis.row_length + mix_length(basis.spans, mix))
        return self.start.with_mix(mix).to_row(basis)

    def adapter(self, row: Tensor, runtime: Runtime) -> Adapter:
        """The adapter that the job's row is: of the modules that it trains, and of those that it began with."""
        basis, targets = runtime.basis, self.spec.target_modules
        modules = set(basis.target_modules if targets == "all-linear" else targets)
        if self.start is not None:
            modules.update(self.start.target_modules)
        return Adapter.from_row(
            row, basis, rank=self.spec.rank, modules=modules, base=runtime.public_name, mix=self.spec.mix
        )

    def wants_evaluation(self) -> bool:
        """Before the first step and at each epoch's end, once each."""
        return bool(self.valid) and self._looks_now and self.curve.evaluated_at != self.step

    def wants_samples(self) -> bool:
        """Where it is evaluated, or would be if there were something to measure on."""
        return bool(self.prompts) and self._looks_now and self.sampled_at != self.step

    @property
    def _looks_now(self) -> bool:
        return self.spec.evaluate == "epoch" and self.step % self.steps_per_epoch == 0

    def wants_checkpoint(self) -> bool:
        at_step, at_time = self.checkpointed
        if self.step == at_step:
            return False
        due = self.ends_epoch or (self.checkpoint_steps is not None and self.step - at_step >= self.checkpoint_steps)
        return due or time.monotonic() - at_time >= self.checkpoint_seconds
