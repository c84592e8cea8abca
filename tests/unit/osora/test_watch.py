"""What the progress bar says that a job is at."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from osora.cli.watch import JobProgress

BEGUN = "Fine-tuning job started"


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        (["Created fine-tuning job: ftjob-1"], "waiting"),
        ([BEGUN], "preparing"),
        ([BEGUN, "Measuring what a sweep of 6 learning rates would take"], "measuring what a sweep would take"),
        ([BEGUN, "Training 9 steps: 12 rows"], "training"),
        ([BEGUN, "Training 9 steps: 12 rows"], "before the first step"),
        ([BEGUN, "Training 9 steps: 12 rows", "Job returned to the queue: its worker is stopping"], "waiting"),
        (["Fine-tuning job resumed from step 3 (attempt 2)"], "preparing"),
    ],
)
def test_a_job_that_has_been_claimed_does_not_wait(messages: list[str], shown: str) -> None:
    """It prepares, measures what it is before its first step, and only then makes steps to show."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200)
    with JobProgress(terminal) as progress:
        for message in messages:
            progress.show({"id": "e", "type": "message", "message": message, "created_at": 1, "data": {}})  # type: ignore[typeddict-item]
        (task,) = progress._progress.tasks
        said = f"{task.description} {task.fields['detail']}"
    assert shown in said
    assert shown == "waiting" or "waiting" not in said


STEP = {"id": "e", "type": "metrics", "message": "m", "created_at": 1}


def step(number: int, **data: Any) -> Any:
    return {**STEP, "data": {"step": number, "total_steps": 100, "train_loss": 4.0 / number, **data}}


def test_a_live_terminal_shows_a_chart_and_a_time_that_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    # The module's own clock: others in this process, such as those of event loops, go on.
    monkeypatch.setattr("osora.cli.watch.time", SimpleNamespace(monotonic=lambda: now[0]))
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    with JobProgress(terminal) as progress:
        for number in (1, 2, 3):
            progress.show(step(number, remaining_seconds=64.0))

        def shown() -> str:
            paper = Console(file=io.StringIO(), width=100)
            paper.print(*progress._progress.get_renderables())
            return paper.file.getvalue()  # type: ignore[attr-defined,no-any-return]

        assert "training loss" in shown()
        assert "1 min 04 s left" in shown()
        now[0] += 30
        assert "34 s left" in shown()
        now[0] += 60
        assert "last step 1 min 30 s ago" in shown()
        terminal.height = 12
        assert "training loss" not in shown()


def test_without_a_terminal_there_are_lines_and_not_one_for_each_step() -> None:
    pipe = Console(file=io.StringIO(), width=200)
    with JobProgress(pipe) as progress:
        for number in range(1, 101):
            progress.show(step(number, remaining_seconds=9.0))
    lines = pipe.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert 9 <= len(lines) <= 15
    assert lines[0] == "  step 1/100 · loss 4.000"
    assert lines[-1] == "  step 100/100 · loss 0.040"


def test_preferences_are_shown_with_their_accuracy_and_margin() -> None:
    pipe = Console(file=io.StringIO(), width=200)
    valid = {"valid_loss": 0.5, "valid_reward_accuracy": 0.75, "valid_reward_margin": 1.5, "valid_exact_match": 0.25}
    with JobProgress(pipe) as progress:
        progress.show(step(1, train_reward_accuracy=0.5, train_reward_margin=0.25))
        progress.show({**STEP, "data": {"step": 8, "total_steps": 100, **valid}})  # type: ignore[typeddict-item]
    first, second = pipe.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first == "  step 1/100 · loss 4.000 · accuracy 50% · margin 0.25"
    assert second == "  validation loss 0.500 · accuracy 75% · margin 1.50 · exact match 25% (step 8)"
