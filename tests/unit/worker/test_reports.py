"""Reports in the order they came, and metrics averaged over the steps that they cover."""

import pytest

from osora_core.training import Progress
from worker.reports import ProgressMeter, Reports


def progress(step: int, *, loss: float = 1.0, tokens: int = 100, seconds: float = 0.5) -> Progress:
    return Progress(
        step=step,
        total_steps=10,
        epoch=step / 5,
        loss=loss,
        accuracy=loss / 2,
        learning_rate=0.01 * step,
        trained_tokens=100 * step,
        step_tokens=tokens,
        step_seconds=seconds,
    )


def test_metrics_average_over_their_steps() -> None:
    meter = ProgressMeter()
    meter.add(progress(1, loss=3.0, tokens=50, seconds=0.5))
    meter.add(last := progress(2, loss=1.0, tokens=250, seconds=1.5))
    assert meter.take(last) == {
        "epoch": 0.4,
        "train_loss": pytest.approx(2.0),
        "train_mean_token_accuracy": pytest.approx(1.0),
        "learning_rate": last.learning_rate,
        "tokens_per_second": 150.0,  # all tokens over all seconds, not a mean of rates
        "trained_tokens": 200,
        "remaining_seconds": 8.0,
    }


def test_each_taking_starts_anew() -> None:
    meter = ProgressMeter()
    meter.add(first := progress(1, loss=9.0))
    meter.take(first)
    meter.add(second := progress(2, loss=1.0))
    assert meter.take(second)["train_loss"] == 1.0


def test_nothing_remains_after_the_last_step() -> None:
    meter = ProgressMeter()
    meter.add(last := progress(10))
    assert meter.take(last)["remaining_seconds"] == 0


def test_reports_and_signals_keep_their_order() -> None:
    reports = Reports()
    error = RuntimeError("gone")
    reports.progress(first := progress(1))
    reports.signal("pause")
    reports.failed(error)
    assert [reports.next() for _ in range(3)] == [first, "pause", error]
