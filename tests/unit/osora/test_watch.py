"""What the progress bar says that a job is at."""

import io

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
