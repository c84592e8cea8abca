"""What an attempt has to react to: the engine's reports, in order, and before them what the registry wants of it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, TypeVar

from osora_core.training import Checkpoint, Curve, Evaluation, Outcome, Progress, Rung, Samples

T = TypeVar("T")

Signal = Literal["lost", "cancel", "pause", "suspend", "drain"]


@dataclass(frozen=True)
class SteppedDown:
    """Memory has run out in a step: the job's rows go on by themselves, at most so many tokens at once."""

    pass_tokens: int


Report = SteppedDown | Progress | Evaluation | Samples | Checkpoint | Rung | Outcome | Exception

_STRONGEST_FIRST: tuple[Signal, ...] = ("lost", "cancel", "pause", "suspend", "drain")


class Interruption(Exception):
    """A signal has come while the attempt was busy with something that it may leave."""

    def __init__(self, signal: Signal) -> None:
        super().__init__(signal)
        self.signal: Signal = signal


class Reports:
    """An `osora_core.training.SweepObserver` that only queues: the engine's thread never waits for a database."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reports: deque[Report] = deque()
        self._signal: Signal | None = None
        self.draining_since: float | None = None
        """When the worker began to drain (`time.monotonic`)."""

    def next(self) -> Report | Signal:
        """The signal if there is one, else the next report, waited for."""
        with self._changed:
            self._changed.wait_for(lambda: self._signal or self._reports)
            if self._signal is not None:
                signal, self._signal = self._signal, None
                return signal
            return self._reports.popleft()

    def rest(self) -> list[Report]:
        """All reports that wait, taken at once."""
        with self._changed:
            reports, self._reports = list(self._reports), deque()
            return reports

    def pause(self, seconds: float) -> None:
        """Sleep. Raises `Interruption` with the signal when there is one, at once if there is one already."""
        with self._changed:
            self._changed.wait_for(lambda: self._signal, seconds)
            signal, self._signal = self._signal, None
        if signal is not None:
            raise Interruption(signal)

    def wait_for(self, future: "Future[T]") -> T:
        """What a future brings or raises. Raises `Interruption` as `pause` does; what has not begun then never does."""
        future.add_done_callback(lambda _: self._wake())
        with self._changed:
            self._changed.wait_for(lambda: self._signal or future.done())
        try:
            self.pause(0)
        except Interruption:
            future.cancel()
            raise
        return future.result()

    def aside(self, work: Callable[[threading.Event], T]) -> T:
        """What `work` returns or raises, on a thread of its own, because it may take longer than a signal can wait.

        Raises `Interruption` as `pause` does. The event that `work` is given is set then: it should end soon, and
        nobody hears of it any more.
        """
        future: Future[T] = Future()
        left = threading.Event()

        def run() -> None:
            try:
                future.set_result(work(left))
            except BaseException as error:
                future.set_exception(error)

        future.set_running_or_notify_cancel()
        threading.Thread(target=run, name="aside", daemon=True).start()
        try:
            return self.wait_for(future)
        finally:
            left.set()

    def signal(self, name: Signal | Literal["continue"]) -> None:
        """From outside: a wish, a lost lease, a worker that stops; "continue" withdraws a pause or suspension."""
        with self._changed:
            if name == "continue":
                self._signal = None if self._signal in ("pause", "suspend") else self._signal
                return
            if name == "drain" and self.draining_since is None:
                self.draining_since = time.monotonic()
            known = [name] if self._signal is None else [name, self._signal]
            self._signal = min(known, key=_STRONGEST_FIRST.index)
            self._changed.notify()

    def progress(self, progress: Progress) -> None:
        self._add(progress)

    def evaluated(self, evaluation: Evaluation) -> None:
        self._add(evaluation)

    def sampled(self, samples: Samples) -> None:
        self._add(samples)

    def stepped_down(self, pass_tokens: int) -> None:
        self._add(SteppedDown(pass_tokens))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """A newer checkpoint takes the place of one that still waits to be stored, but for those that end an epoch."""
        with self._changed:
            self._reports = deque(
                report for report in self._reports if not isinstance(report, Checkpoint) or report.ends_epoch
            )
        self._add(checkpoint)

    def narrowed(self, rung: Rung) -> None:
        self._add(rung)

    def finished(self, outcome: Outcome) -> None:
        self._add(outcome)

    def failed(self, error: Exception) -> None:
        self._add(error)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _add(self, report: Report) -> None:
        with self._changed:
            self._reports.append(report)
            self._changed.notify()


@dataclass
class ProgressMeter:
    """Averages over the steps since the last metrics event, so that events come at a bounded rate."""

    loss: float = 0.0
    accuracy: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    reward_margin: float = 0.0
    steps: int = 0
    latest: Progress | None = None
    """The last step that was added since the metrics were taken."""

    def add(self, progress: Progress) -> None:
        self.loss += progress.loss
        self.accuracy += progress.accuracy
        self.tokens += progress.step_tokens
        self.seconds += progress.step_seconds
        self.reward_margin += progress.reward_margin or 0.0
        self.steps += 1
        self.latest = progress

    def take(self) -> dict[str, float]:
        """The metrics of the steps added so far, which are at least one; starts anew."""
        latest = self.latest
        assert latest is not None
        step_seconds = self.seconds / self.steps
        metrics = {
            "epoch": round(latest.epoch, 3),
            "train_loss": self.loss / self.steps,
            **self._accuracy(latest),
            "learning_rate": latest.learning_rate,
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "trained_tokens": latest.trained_tokens,
            "remaining_seconds": round(step_seconds * (latest.total_steps - latest.step), 1),
        }
        self.__init__()  # type: ignore[misc]
        return metrics

    def _accuracy(self, latest: Progress) -> dict[str, float]:
        accuracy = self.accuracy / self.steps
        if latest.reward_margin is None:
            return {"train_mean_token_accuracy": accuracy}
        return {"train_reward_accuracy": accuracy, "train_reward_margin": self.reward_margin / self.steps}


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The metrics of an evaluation, by OpenAI's names: there `full_` is the whole file, and here all of them are."""
    if evaluation.reward_margin is not None:
        return {
            "valid_loss": evaluation.loss,
            "valid_reward_accuracy": evaluation.accuracy,
            "valid_reward_margin": evaluation.reward_margin,
            "valid_exact_match": evaluation.exact_match,
            "full_valid_loss": evaluation.loss,
        }
    return {
        "valid_loss": evaluation.loss,
        "valid_mean_token_accuracy": evaluation.accuracy,
        "valid_exact_match": evaluation.exact_match,
        "full_valid_loss": evaluation.loss,
        "full_valid_mean_token_accuracy": evaluation.accuracy,
    }


def evaluated_at(curve: Curve, step: int) -> dict[str, float]:
    """The metrics of the evaluation after so many steps; none where there was none."""
    evaluation = curve.at(step)
    return {} if evaluation is None else evaluation_metrics(evaluation)
