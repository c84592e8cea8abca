"""What a job measures, in words: of a step, of an evaluation, and of the whole."""

from collections.abc import Iterable
from typing import Any

from osora.cli.output import duration
from osora.schemas import Event, Job


def of_step(data: dict[str, Any]) -> str:
    """`step 3/9 · loss 1.250 · accuracy 75% · margin 0.400`: the last two of preferences."""
    parts = [f"step {data['step']}/{data['total_steps']}", f"loss {data['train_loss']:.3f}"]
    return " · ".join([*parts, *_preferences(data, "train")])


def of_evaluation(data: dict[str, Any]) -> str:
    """`validation loss 0.250 · exact match 75% (step 8)`."""
    parts = [f"validation loss {data['valid_loss']:.3f}", *_preferences(data, "valid")]
    if data.get("valid_exact_match") is not None:
        parts.append(f"exact match {data['valid_exact_match']:.0%}")
    return f"{' · '.join(parts)} ({at(data['step'])})"


def of_event(event: Event) -> str:
    """An event in one line, with what it carries."""
    data = event.get("data") or {}
    if {"prompt", "text"} <= data.keys():
        return f"{event['message']}: {sample(data)}"
    if event.get("type") == "metrics" and data.get("valid_loss") is not None:
        return of_evaluation(data)
    if event.get("type") == "metrics" and data.get("train_loss") is not None:
        return of_step(data)
    return event["message"]


def sample(data: dict[str, Any]) -> str:
    """A prompt and its answer, of an event that carries both."""
    return f"{data['prompt']!r} -> {data['text']!r}"


def at(step: int) -> str:
    return f"step {step}" if step else "before training"


def summary(job: Job, events: Iterable[Event]) -> list[str]:
    """How a job went: its steps, time and tokens, and what became of its losses."""
    metrics = [event["data"] for event in events if event.get("type") == "metrics"]
    steps = [data for data in metrics if data.get("train_loss") is not None]
    evaluations = sorted(
        (data for data in metrics if data.get("valid_loss") is not None), key=lambda data: int(data["step"])
    )
    lines = []
    details = job.get("osora") or {}
    done = [f"{details['step']} steps" if details.get("step") else ""]
    started, finished = details.get("started_at"), job.get("finished_at")
    if started and finished:
        done.append(f"in {duration(finished - started)}")
    if job.get("trained_tokens"):
        done.append(f"on {job['trained_tokens']:,} tokens")
    if any(done):
        lines.append(" ".join(part for part in done if part))
    if len(steps) > 1:
        lines.append(f"training loss {steps[0]['train_loss']:.3f} -> {steps[-1]['train_loss']:.3f}")
    if len(evaluations) > 1:
        lines.append(_change(evaluations, "valid_loss", "validation loss", ".3f"))
        lines += [
            _change(evaluations, name, words, form)
            for name, words, form in (
                ("valid_exact_match", "exact match", ".0%"),
                ("valid_reward_accuracy", "preferred answers likelier", ".0%"),
                ("valid_reward_margin", "margin", ".2f"),
            )
            if all(data.get(name) is not None for data in evaluations)
        ]
    return lines


def _change(evaluations: list[dict[str, Any]], name: str, words: str, form: str) -> str:
    """From before training to the evaluation with the lowest loss."""
    best = min(evaluations, key=lambda data: float(data["valid_loss"]))
    return f"{words} {evaluations[0][name]:{form}} -> {best[name]:{form}} ({at(best['step'])})"


def _preferences(data: dict[str, Any], prefix: str) -> list[str]:
    accuracy, margin = data.get(f"{prefix}_reward_accuracy"), data.get(f"{prefix}_reward_margin")
    parts = [] if accuracy is None else [f"accuracy {accuracy:.0%}"]
    return parts if margin is None else [*parts, f"margin {margin:.2f}"]
