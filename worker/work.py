"""What an attempt trains: one job, or a sweep of several that joins and leaves its engine as a whole."""

from dataclasses import dataclass
from typing import Protocol

from osora_core.basis import Basis
from osora_core.training import Checkpoint, TrainingEngine, TrainingJob


class Work(Protocol):
    """See `osora_core.training.Sweep`, which is one; `SingleJob` is the other."""

    @property
    def job(self) -> TrainingJob:
        """What is trained; of a sweep, the job that its members are made after."""

    @property
    def resume(self) -> Checkpoint | None:
        """Where it goes on from; None for the beginning."""

    def identity(self, basis: Basis) -> str:
        """sha256 of what a checkpoint must agree on to continue exactly."""

    def join(self, engine: TrainingEngine) -> None:
        """Train from the next step on. Raises as `TrainingEngine.add` does."""

    def leave(self, engine: TrainingEngine) -> Checkpoint | None:
        """Leave at a step boundary; the state to go on from, None if it has just ended or never joined."""

    def discard(self, engine: TrainingEngine) -> None:
        """Leave without a state; doing it twice is no error."""


@dataclass(frozen=True)
class SingleJob:
    """A job by itself."""

    job: TrainingJob

    @property
    def resume(self) -> Checkpoint | None:
        return self.job.resume

    def identity(self, basis: Basis) -> str:
        return self.job.identity(basis)

    def join(self, engine: TrainingEngine) -> None:
        engine.add(self.job)

    def leave(self, engine: TrainingEngine) -> Checkpoint | None:
        return engine.remove(self.job) if engine.holds(self.job) else None

    def discard(self, engine: TrainingEngine) -> None:
        engine.discard(self.job)
