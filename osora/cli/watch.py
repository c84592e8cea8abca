"""Watching a job: a chart of its losses and a bar, fed by its event stream; lines where no terminal is."""

import time
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import Progress, Task
from rich.text import Text

from osora.cli.chart import LossChart
from osora.cli.figures import at, of_evaluation, of_step, sample
from osora.cli.output import duration, plain
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
# Without a terminal: a line for a step, so often.
_LINE_EVERY_SECONDS = 10.0
_LINE_EVERY_SHARE = 0.1
# Of the terminal: with fewer lines, the chart would push out what happened.
_LINES_FOR_A_CHART = 18
_WIDEST_BAR = 24
_NARROWEST_BAR = 6


class JobProgress:
    """A chart and a progress bar that take job events. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        self._chart = LossChart()
        self._progress = _Screen(self._chart, console, disable=not self._is_live)
        self._task = self._progress.add_task("waiting", total=None, detail="", stepped=None, left=None)
        self._done = ""
        self._line_at = (0, float("-inf"))  # the step of the last line, and when it was written

    def __enter__(self) -> "JobProgress":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        # What is left standing is what was done; the time that was left is no longer true.
        self._progress.update(self._task, detail=self._done, left=None, visible=bool(self._done))
        self._progress.stop()

    def show(self, event: Event) -> None:
        data = event.get("data") or {}
        if "prompt" in data and "text" in data:
            self._print(f"sample ({at(data['step'])}): {sample(data)}")
        elif event.get("type") != "metrics":
            self._show_phase(event["message"])
            self._print(event["message"])
        elif "valid_loss" in data:
            self._chart.add(data["step"], data["valid_loss"], is_validation=True)
            self._print(of_evaluation(data))
        else:
            self._show_step(data)

    def lost(self, error: OsoraError) -> None:
        """Say that what is shown may be old."""
        self._print(f"{error}; trying again")

    def _print(self, line: str) -> None:
        self._progress.console.print(f"  {plain(line)}", markup=False, highlight=False, soft_wrap=True)

    def _show_phase(self, message: str) -> None:
        for beginning, (description, detail) in _AT.items():
            if message.startswith(beginning):
                self._progress.update(self._task, description=description, detail=detail, left=None)

    def _show_step(self, data: dict[str, Any]) -> None:
        step, total = data["step"], data["total_steps"]
        self._done = of_step(data)
        if data.get("tokens_per_second"):
            self._done += f" · {data['tokens_per_second']:,.0f} tokens/s"
        self._chart.steps = total
        self._chart.add(step, data["train_loss"])
        if not self._is_live:
            self._write_step(step, total)
        self._progress.update(
            self._task,
            description="training",
            completed=step,
            total=total,
            detail=self._done,
            stepped=time.monotonic(),
            left=data.get("remaining_seconds"),
        )

    def _write_step(self, step: int, total: int) -> None:
        last, written = self._line_at
        now = time.monotonic()
        if step == total or step - last >= total * _LINE_EVERY_SHARE or now - written >= _LINE_EVERY_SECONDS:
            self._line_at = (step, now)
            self._print(self._done)


class _Screen(Progress):
    """The line of one task, with a chart above it where there is room."""

    def __init__(self, chart: LossChart, console: Console, *, disable: bool) -> None:
        self._losses = chart
        self._terminal = console
        super().__init__(console=console, disable=disable, refresh_per_second=4)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self._terminal.height >= _LINES_FOR_A_CHART:
            yield self._losses
        for task in self.tasks:
            if task.visible:
                yield _line(task, self._terminal.width, ascii_only=self._terminal.options.ascii_only)


def _line(task: Task, width: int, *, ascii_only: bool) -> Text:
    """`training ━━━━ step 3/9 · 13 s left · loss 1.250`, with as much of a bar as there is room for."""
    detail = task.fields["detail"]
    if task.fields["left"] is not None:
        step, _, rest = detail.partition(" · ")
        detail = f"{step} · {_time_left(task)} · {rest}"
    # Cut without a sign: where `…` is written as three dots, the line would be longer than the terminal.
    line = Text(f"{task.description} ", no_wrap=True, overflow="crop")
    room = min(width - cell_len(f"{task.description}  {detail}"), _WIDEST_BAR)
    if task.total and room >= _NARROWEST_BAR:
        done = round(room * min(task.completed / task.total, 1.0))
        line.append(("#" if ascii_only else "━") * done, style="magenta")
        line.append(("-" if ascii_only else "─") * (room - done), style="bright_black")
        line.append(" ")
    return line.append(detail)


def _time_left(task: Task) -> str:
    """Counts down from what the last step said, so that it goes on between two steps."""
    since = time.monotonic() - task.fields["stepped"]
    left = task.fields["left"] - since
    return f"{duration(left)} left" if left > 0 else f"last step {duration(since)} ago"


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
