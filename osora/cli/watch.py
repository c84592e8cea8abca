"""Watching a job: a live progress bar fed by its event stream."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from osora.cli.output import duration
from osora.errors import OsoraError
from osora.schemas import Event, Job
from osora.sdk import Osora

# What a job is at, by how the last event that tells it begins.
_AT = {
    "Fine-tuning job": ("preparing", "reading the rows"),
    "Measuring": ("preparing", "measuring what a sweep would take"),
    "Training": ("training", "before the first step"),
    "Waiting": ("waiting", ""),
    "Job returned to the queue": ("waiting", ""),
}


class JobProgress:
    """A progress bar that takes job events. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
        )
        self._task: TaskID | None = None
        self._done: list[str] = []

    def __enter__(self) -> "JobProgress":
        self._progress.start()
        self._task = self._progress.add_task("waiting", total=None, detail="")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._task is not None
        # What is left standing is what was done; the time that was left is no longer true.
        self._progress.update(self._task, detail=" · ".join(self._done), visible=bool(self._done))
        self._progress.stop()

    def show(self, event: Event) -> None:
        data = event.get("data") or {}
        if "prompt" in data and "text" in data:
            self._show_sample(data)
        elif event.get("type") != "metrics":
            self._show_phase(event["message"])
            self._progress.console.print(f"  {event['message']}", markup=False, highlight=False, soft_wrap=True)
        elif "valid_loss" in event["data"]:
            self._show_evaluation(event["data"])
        else:
            self._show_step(event["data"])

    def lost(self, error: OsoraError) -> None:
        """Say that what is shown may be old."""
        self._progress.console.print(f"  {error}; trying again", markup=False, highlight=False, soft_wrap=True)

    def _show_phase(self, message: str) -> None:
        assert self._task is not None
        for beginning, (description, detail) in _AT.items():
            if message.startswith(beginning):
                self._progress.update(self._task, description=description, detail=detail)

    def _show_evaluation(self, data: dict[str, Any]) -> None:
        exact = f" · exact match {data['valid_exact_match']:.0%}" if "valid_exact_match" in data else ""
        line = f"  validation loss {data['valid_loss']:.3f}{exact} ({_when(data['step'])})"
        self._progress.console.print(line, markup=False, highlight=False)

    def _show_sample(self, data: dict[str, Any]) -> None:
        line = f"  sample ({_when(data['step'])}): {sample(data)}"
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _show_step(self, data: dict[str, float]) -> None:
        parts = [
            f"step {data['step']}/{data['total_steps']}",
            f"loss {data['train_loss']:.3f}",
        ]
        if data.get("tokens_per_second"):
            parts.append(f"{data['tokens_per_second']:,.0f} tokens/s")
        self._done = list(parts)
        if data.get("remaining_seconds") is not None:
            parts.append(f"{duration(data['remaining_seconds'])} left")
        assert self._task is not None
        self._progress.update(
            self._task,
            description="training",
            completed=data["step"],
            total=data["total_steps"],
            detail=" · ".join(parts),
        )


def sample(data: dict[str, Any]) -> str:
    """A prompt and its answer, of an event that carries both."""
    return f"{data['prompt']!r} -> {data['text']!r}"


def _when(step: int) -> str:
    return f"step {step}" if step else "before training"


def watch(osora: Osora, job_id: str, console: Console) -> tuple[Job, list[Event]]:
    """Show a job until it has ended; returns the job and all its events."""
    seen: list[Event] = []
    with JobProgress(console) as progress:
        for event in osora.jobs.events(job_id, on_lost=progress.lost):
            seen.append(event)
            progress.show(event)
    return osora.jobs.get(job_id), seen


def valid_losses(events: Iterable[Event]) -> list[float]:
    """The validation losses in the order of training; the first, at step 0, is that before training."""
    points = [
        (event["data"]["step"], event["data"]["valid_loss"])
        for event in events
        if event.get("type") == "metrics" and "valid_loss" in event["data"]
    ]
    return [loss for _, loss in sorted(points)]
