"""What a job's history says at its end of the state that it leaves."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from osora_core.training import Curve, Evaluation, JobSpec, Outcome, SweepOutcome, TrainingJob
from worker.remarks import remarks


def said(losses: list[float], kept: int, start: Any = None, **spec: Any) -> list[tuple[str, str]]:
    """Of a job that was evaluated after each step, from the start on."""
    curve = Curve(evaluations=[Evaluation(step, 2, loss, 0.0, 0.0) for step, loss in enumerate(losses)])
    job = SimpleNamespace(spec=JobSpec(**spec), start=start, total_steps=len(losses) - 1, steps_per_epoch=1)
    outcome = Outcome(cast(Any, None), kept, len(losses) - 1, 10, curve)
    return [(level, message) for message, level in remarks(cast(TrainingJob, job), outcome)]


def test_the_state_that_is_kept_is_named() -> None:
    ((level, message),) = said([3.0, 1.0, 2.0], kept=1)
    assert (level, message) == ("info", "Keeping the state of step 1: its validation loss, 1.0000, is the lowest")


@pytest.mark.parametrize(("start", "words"), [(None, "the bare base"), (object(), "the adapter that it began with")])
def test_it_is_a_warning_that_nothing_was_better_than_the_start(start: Any, words: str) -> None:
    ((level, message),) = said([1.0, 3.0, 2.0], kept=0, start=start)
    assert level == "warn"
    assert message.startswith("No state was better than the start: its validation loss, 1.0000, is the lowest")
    assert f"answers as {words} does" in message


def test_it_is_a_warning_that_the_last_state_is_worse_than_the_start() -> None:
    ((level, message),) = said([1.0, 3.0, 2.0], kept=2, keep="last")
    assert level == "warn"
    assert message.startswith("The last state is worse than the start: validation loss 2.0000, and 1.0000 before.")
    assert said([3.0, 1.0, 2.0], kept=2, keep="last") == []


def test_where_nothing_was_measured_nothing_is_said() -> None:
    assert said([], kept=0) == []


def unvalidated(losses: list[float], choice_losses: tuple[float, float] | None = None) -> list[tuple[str, str]]:
    """Of a job, or with losses on rows to choose by a sweep, that was not evaluated."""
    spec, steps = JobSpec(), len(losses)
    job = SimpleNamespace(spec=spec, start=None, total_steps=steps, steps_per_epoch=1)
    curve = Curve(losses, [0.0] * steps)
    outcome = Outcome(cast(Any, None), steps, steps, 10, curve)
    if choice_losses is not None:
        outcome = SweepOutcome(cast(Any, None), steps, steps, 10, curve, spec, "", choice_losses)
    return [(level, message) for message, level in remarks(cast(TrainingJob, job), outcome)]


def test_without_validation_it_is_a_warning_that_the_training_loss_rose() -> None:
    ((level, message),) = unvalidated([7.76, 9.0, 10.33])
    assert level == "warn"
    assert message.startswith("Training made it worse: the training loss rose from 7.7600 to 10.3300")
    assert "lower learning rate" in message
    assert unvalidated([3.0, 2.0, 1.0]) == []


def test_the_best_of_a_sweep_is_held_against_the_start() -> None:
    (level, chosen), *others = unvalidated([3.0, 2.0], choice_losses=(2.5, 1.5))
    assert (level, others) == ("info", [])
    assert chosen.startswith("The sweep chose learning rate")
    _, (level, message) = unvalidated([3.0, 2.0], choice_losses=(2.5, 2.6))
    assert level == "warn"
    assert message.startswith("Even the best of the sweep is worse than the start")
    assert "2.6000, and was 2.5000 before" in message


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([1.0, 1.0, 1.0], "try a higher learning rate"),
        ([1.0, 1.0005, 1.0001], "try a higher learning rate"),
        ([1.0, 1.0005, 1.2], "Try a lower learning rate"),
    ],
)
def test_a_rate_that_moves_nothing_is_not_said_to_be_too_high(losses: list[float], words: str) -> None:
    ((_, message),) = said(losses, kept=0)
    assert words in message
