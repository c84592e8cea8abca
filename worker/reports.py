"""What an attempt has to react to, in order: the engine's reports and the registry's signals, through one queue."""

import queue
from dataclasses import dataclass
from typing import Literal, cast

from osora_core.training import Checkpoint, Evaluation, Outcome, Progress

Signal = Literal["cancel", "pause", "lost", "drain"]
Report = Progress | Evaluation | Checkpoint | Outcome | Exception | Signal


class Reports:
    """An `osora_core.training.Observer` that only queues: the engine's thread never waits for a database."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Report] = queue.SimpleQueue()

    def next(self) -> Report:
        """The next report, waited for."""
        return self._queue.get()

    def progress(self, progress: Progress) -> None:
        self._queue.put(progress)

    def evaluated(self, evaluation: Evaluation) -> None:
        self._queue.put(evaluation)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self._queue.put(checkpoint)

    def finished(self, outcome: Outcome) -> None:
        self._queue.put(outcome)

    def failed(self, error: Exception) -> None:
        self._queue.put(error)

    def signal(self, name: str) -> None:
        """A word from outside: the tenant's wish, a lost lease, a worker that is to stop."""
        self._queue.put(cast(Signal, name))


@dataclass
class ProgressMeter:
    """Averages over the steps since the last metrics event, so that events come at a bounded rate."""

    loss: float = 0.0
    accuracy: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    steps: int = 0

    def add(self, progress: Progress) -> None:
        self.loss += progress.loss
        self.accuracy += progress.accuracy
        self.tokens += progress.step_tokens
        self.seconds += progress.step_seconds
        self.steps += 1

    def take(self, latest: Progress) -> dict[str, float]:
        """The metrics of the steps added so far, `latest` being the last of them; starts anew."""
        step_seconds = self.seconds / self.steps
        metrics = {
            "epoch": round(latest.epoch, 3),
            "train_loss": self.loss / self.steps,
            "train_mean_token_accuracy": self.accuracy / self.steps,
            "learning_rate": latest.learning_rate,
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "trained_tokens": latest.trained_tokens,
            "remaining_seconds": round(step_seconds * (latest.total_steps - latest.step), 1),
        }
        self.__init__()  # type: ignore[misc]
        return metrics
