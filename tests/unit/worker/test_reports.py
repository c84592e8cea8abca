"""Reports in the order they came, and metrics averaged over the steps that they cover."""

import threading
from concurrent.futures import Future

import pytest
import torch

from osora_core.training import Checkpoint, Curve, Progress
from worker.reports import Interruption, ProgressMeter, Reports


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
        compute_seconds=seconds,
    )


def test_metrics_average_over_their_steps() -> None:
    meter = ProgressMeter()
    meter.add(progress(1, loss=3.0, tokens=50, seconds=0.5))
    meter.add(last := progress(2, loss=1.0, tokens=250, seconds=1.5))
    assert meter.take() == {
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
    meter.add(progress(1, loss=9.0))
    meter.take()
    assert meter.latest is None
    meter.add(progress(2, loss=1.0))
    assert meter.take()["train_loss"] == 1.0


def test_nothing_remains_after_the_last_step() -> None:
    meter = ProgressMeter()
    meter.add(progress(10))
    assert meter.take()["remaining_seconds"] == 0


def test_a_signal_goes_before_the_reports_which_keep_their_order() -> None:
    reports = Reports()
    error = RuntimeError("gone")
    reports.progress(first := progress(1))
    reports.signal("pause")
    reports.failed(error)
    assert [reports.next() for _ in range(3)] == ["pause", first, error]


def test_of_several_signals_the_strongest_counts() -> None:
    reports = Reports()
    for name in ("drain", "cancel", "pause"):
        reports.signal(name)  # type: ignore[arg-type]
    reports.progress(first := progress(1))
    assert [reports.next(), reports.next()] == ["cancel", first]


def test_a_pause_can_be_withdrawn_and_a_cancellation_cannot() -> None:
    reports = Reports()
    reports.signal("pause")
    reports.signal("continue")
    reports.signal("suspend")
    reports.signal("continue")
    reports.pause(0)  # no signal is left to interrupt it
    reports.signal("cancel")
    reports.signal("continue")
    with pytest.raises(Interruption, match="cancel"):
        reports.pause(60)
    reports.pause(0)  # heard once


def test_a_newer_checkpoint_replaces_one_that_was_not_stored_yet() -> None:
    reports = Reports()
    old, new = (Checkpoint(step, 0, "", {}, *[torch.zeros(1)] * 3, Curve()) for step in (1, 2))
    reports.checkpoint(old)
    reports.progress(between := progress(1))
    reports.checkpoint(new)
    assert [reports.next(), reports.next()] == [between, new]


def test_a_signal_ends_the_wait_for_a_future_and_what_has_not_begun_never_does() -> None:
    reports, waiting, done = Reports(), Future[int](), Future[int]()
    done.set_result(3)
    assert reports.wait_for(done) == 3
    reports.signal("pause")
    with pytest.raises(Interruption, match="pause"):
        reports.wait_for(waiting)
    assert waiting.cancelled()
    assert reports.wait_for(done) == 3  # the signal has been heard


def test_what_is_done_aside_is_told_that_nobody_waits_any_more() -> None:
    reports, begun, told = Reports(), threading.Event(), threading.Event()

    def work(left: threading.Event) -> None:
        begun.set()
        assert left.wait(60)
        told.set()

    threading.Thread(target=lambda: begun.wait(60) and reports.signal("cancel")).start()
    with pytest.raises(Interruption, match="cancel"):
        reports.aside(work)
    assert told.wait(60)


def test_what_goes_wrong_aside_is_raised() -> None:
    def work(left: threading.Event) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        Reports().aside(work)
    assert Reports().aside(lambda left: left.is_set()) is False
