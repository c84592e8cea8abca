"""The parts of a job's page: each paints itself anew when it is told to."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from console import charts
from console.history import History
from console.layout import button_link, panel
from console.tables import Cell, facts, plain_table
from console.words import clock, duration, loss, share, when
from osora.schemas import Attempt, Checkpoint, Event, Job

_MOST_EVENTS = 300
_MOST_ANSWERS = 12


class Figures:
    """Where it stands, in numbers."""

    def __init__(self) -> None:
        self._box = ui.element("div").classes("figures").props('role=group aria-label="Figures"')

    def paint(self, job: Job, history: History) -> None:
        """Anew."""
        details: Any = job.get("osora") or {}
        total = history.total_steps or details.get("total_steps")
        step = max(history.step, details.get("step") or 0)
        left = history.remaining_seconds if job["status"] == "running" else None
        pace = history.latest("tokens_per_second")
        rate = history.latest("learning_rate")
        accuracy = history.latest("valid_reward_accuracy")
        self._box.clear()
        with self._box:
            _figure("step", f"{step:,} / {total:,}" if total else "—", f"{duration(left)} left" if left else "")
            _figure("training loss", loss(history.latest("train_loss")))
            _figure("validation loss", loss(history.latest("valid_loss")), _best(history))
            if accuracy is None:
                _figure("exact match", share(history.latest("valid_exact_match")), "of validation rows")
            else:
                _figure("preferred answers likelier", share(accuracy), "of validation rows")
            _figure("learning rate", "—" if rate is None else f"{rate:.3g}")
            _figure("tokens a second", "—" if pace is None else f"{pace:,.0f}")


class Curves:
    """The charts."""

    def __init__(self) -> None:
        with panel("Loss"):
            self._losses = charts.chart("Training and validation loss by step", height=320)
        with panel("Sweep", "sweep") as self._family_panel:
            ui.label("Loss on the rows to choose by, of each member; dashed ones are out of the race.").classes("muted")
            self._members = ui.element("ul").classes("legend")
            self._family = charts.chart("Loss of each member of the sweep by step", height=320)
            self._named: list[tuple[str, str, bool]] = []
        self._family_panel.set_visibility(False)
        with ui.element("div").classes("columns thirds"):
            with panel("Exact match") as self._match_panel:
                self._match = charts.chart("Exact match by step, in percent", height=200)
            with panel("Learning rate"):
                self._rate = charts.chart("Learning rate by step", height=200)
            with panel("Tokens a second"):
                self._pace = charts.chart("Tokens a second by step", height=200)

    def paint(self, job: Job, history: History) -> None:
        """Anew."""
        steps = history.total_steps or (job.get("osora") or {}).get("total_steps") or 1
        charts.draw(self._losses, charts.losses(history), steps, is_loss=True)
        self._family_panel.set_visibility(bool(history.members))
        members = charts.family(history)
        charts.draw(self._family, members, steps, is_loss=True, has_legend=False)
        if (named := [(line.name, line.colour, line.is_dotted) for line in members]) != self._named:
            self._named = named
            charts.legend(self._members, members)
        match = charts.one(history, "valid_exact_match", "exact match", 3, is_marked=True)
        charts.draw(self._match, match, steps, percent=True)
        charts.draw(self._rate, charts.one(history, "learning_rate", "learning rate", 4), steps)
        charts.draw(self._pace, charts.one(history, "tokens_per_second", "tokens a second", 6), steps)


class Samples:
    """What it answers, evaluation by evaluation. It is a model's text, and is shown as that."""

    def __init__(self) -> None:
        with panel("Samples") as self._panel:
            self._box = ui.element("div").classes("stack")
        self._painted = -1

    def paint(self, history: History) -> None:
        """Anew, if there are more."""
        if len(history.samples) == self._painted:
            return
        self._painted = len(history.samples)
        self._panel.set_visibility(bool(history.samples))
        self._box.clear()
        with self._box:
            for prompt, samples in history.samples_by_prompt().items():
                with ui.element("div").classes("sample"):
                    ui.label(prompt).classes("sample-prompt wrap")
                    rows: list[list[Cell]] = [
                        [f"step {sample.step}" if sample.step else "before", _text(sample.text)]
                        for sample in samples[:_MOST_ANSWERS]
                    ]
                    plain_table(("after", "answer"), rows, f"Answers to {prompt[:60]}")


class Happenings:
    """The events in words, newest first."""

    def __init__(self) -> None:
        with panel("Events"):
            self._list = ui.element("ol").classes("events").props('tabindex=0 aria-label="Events, newest first"')
        self._painted = -1

    def paint(self, messages: Sequence[Event]) -> None:
        """Anew, if there are more."""
        if len(messages) == self._painted:
            return
        self._painted = len(messages)
        self._list.clear()
        with self._list:
            for event in reversed(messages[-_MOST_EVENTS:]):
                with ui.element("li").classes(f"event {event.get('level', 'info')}"):
                    ui.label(clock(event["created_at"])).classes("event-time")
                    ui.label(event["message"]).classes("wrap")


def checkpoint_table(checkpoints: Sequence[Checkpoint]) -> None:
    """The states that can be called."""
    with panel("Checkpoints", "tall"):
        if not checkpoints:
            ui.label("None yet: the first comes with an evaluation, or some seconds of training.").classes("muted")
            return
        rows: list[list[Cell]] = [_checkpoint(checkpoint) for checkpoint in checkpoints]
        plain_table(("step", "valid. loss", "exact match", ""), rows, "Checkpoints, newest first", right=(0, 1, 2))


def attempt_table(attempts: Sequence[Attempt]) -> None:
    """Each worker's try, and why it ended."""
    if not attempts:
        return
    with panel("Attempts"):
        rows = [
            [
                str(attempt["number"]),
                attempt.get("outcome") or "running",
                f"{attempt['first_step']} to {attempt.get('last_step', '?')}",
                duration(attempt.get("compute_seconds") or 0),
                attempt.get("reason") or (attempt.get("error") or {}).get("message") or "",
                attempt["worker_id"],
            ]
            for attempt in attempts
        ]
        plain_table(("no.", "outcome", "steps", "compute", "why", "worker"), rows, "Attempts")


def about(job: Job) -> None:
    """What it was asked to be, and became."""
    details: Any = job.get("osora") or {}
    resolved, rows = details.get("resolved") or {}, details.get("rows") or {}
    hyperparameters = job.get("hyperparameters") or {}
    rate = resolved.get("learning_rate")
    with panel("About"):
        facts(
            [
                ("job", _mono(job["id"])),
                ("base", job["model"]),
                ("method", (job.get("method") or {}).get("type")),
                ("tenant", str(job.get("organization_id") or "")),
                ("training file", _mono(job["training_file"])),
                ("validation file", _mono(job.get("validation_file"))),
                ("rows", _rows(rows)),
                ("epochs", str(hyperparameters.get("n_epochs", ""))),
                ("batch size", str(hyperparameters.get("batch_size", ""))),
                ("learning rate", f"{rate:g}" if isinstance(rate, (int, float)) else None),
                ("rank", str(resolved.get("rank") or "")),
                ("seed", str(job.get("seed", ""))),
                ("tokens", f"{job['trained_tokens']:,}" if job.get("trained_tokens") else None),
                ("compute", duration(details["compute_seconds"]) if details.get("compute_seconds") else None),
                ("created", when(job["created_at"])),
                ("likely start", when(details.get("estimated_start"))),
                ("likely end", when(job.get("estimated_finish"))),
                ("finished", when(job.get("finished_at"))),
                ("waiting for", details.get("waiting_for")),
                ("adapter", _adapter(job, details)),
            ]
        )


def try_it(model: str) -> str:
    """Where a model is asked something."""
    return f"/playground?model={quote(model, safe='')}"


def _adapter(job: Job, details: Any) -> Cell | None:
    name, adapter_id = job.get("fine_tuned_model"), details.get("adapter_id")
    if name and adapter_id:
        return lambda: ui.link(name, f"/adapters/{adapter_id}").classes("mono")
    return f"{name} (deleted)" if name else None


def _rows(rows: Any) -> str:
    words = {"training": "to train on", "validation": "to validate on", "truncated": "cut", "dropped": "left out"}
    return ", ".join(f"{rows[name]:,} {said}" for name, said in words.items() if rows.get(name))


def _checkpoint(checkpoint: Checkpoint) -> list[Cell]:
    metrics: Any = checkpoint.get("metrics") or {}
    model, step = checkpoint["fine_tuned_model_checkpoint"], checkpoint["step_number"]
    link = lambda: button_link("Try it", try_it(model), primary=False).props(f'aria-label="Try step {step}"')  # noqa: E731
    return [str(step), loss(metrics.get("valid_loss")), share(metrics.get("valid_exact_match")), link]


def _best(history: History) -> str:
    curve = history.curves.get("valid_loss")
    if not curve:
        return ""
    step = min(curve, key=lambda step: (curve[step], step))
    return f"best {loss(curve[step])} at step {step}" if len(curve) > 1 else ""


def _figure(name: str, value: str, note: str = "") -> None:
    with ui.element("div").classes("figure"):
        ui.label(name).classes("figure-name")
        ui.label(value).classes("figure-value")
        if note:
            ui.label(note).classes("figure-note")


def _mono(text: str | None) -> Cell | None:
    return (lambda: ui.label(text).classes("mono")) if text else None


def _text(text: str) -> Cell:
    return lambda: ui.label(text or "(nothing)").classes("wrap" if text else "muted")
