"""What `osora train --dry-run` shows: the job as it would be."""

from collections.abc import Mapping
from typing import Any

from osora.cli.chart import LossChart
from osora.cli.dial import point_fields
from osora.cli.flags import in_flags
from osora.cli.output import console, duration, human_bytes, print_fields, say, sentences, when

# What the service resolves and a person may want to change, and how it is called here.
_KNOBS = {
    "learning_rate": "learning rate",
    "overlong": "too long rows",
    "validation_share": "held out",
    "keep": "keep",
    "priority": "priority",
}


def show_forecast(forecast: Mapping[str, Any]) -> None:
    """A dry run's answer, for a person."""
    rows, tokens = forecast.get("rows") or {}, forecast.get("tokens") or {}
    hyperparameters, knobs = forecast.get("hyperparameters") or {}, forecast.get("osora") or {}
    seconds = forecast.get("estimated_seconds")
    print_fields(
        {
            "base": forecast.get("model"),
            "method": (forecast.get("method") or {}).get("type"),
            "rows": _counted(rows, "training", "to train on", "validation", "to validate on"),
            "too long": _counted(rows, "truncated", "truncated", "dropped", "dropped"),
            "tokens": _tokens(tokens),
            "epochs": hyperparameters.get("n_epochs"),
            "batch size": hyperparameters.get("batch_size"),
            **(point_fields(points) if (points := forecast.get("points")) else {"rank": knobs.get("rank")}),
            **{words: knobs.get(name) for name, words in _KNOBS.items()},
            "steps": forecast.get("steps"),
            "jobs ahead": forecast.get("queue_position"),
            "likely start": when(forecast.get("estimated_start")),
            "likely end": when(forecast.get("estimated_finish")),
            "it would take": "not known yet: no such job has ended here" if seconds is None else duration(seconds),
            "adapter": human_bytes(forecast.get("adapter_bytes")),
        }
    )
    for warning in forecast.get("warnings") or []:
        say(f"Warning: {_warning(warning)}")
    if probe := forecast.get("probe"):
        _show_probe(probe)
    say("Next: the same without --dry-run trains.")


def _counted(counts: Mapping[str, Any], first: str, first_words: str, second: str, second_words: str) -> str:
    """`60 to train on, 6 to validate on`, without what is none."""
    parts = ((counts.get(first), first_words), (counts.get(second), second_words))
    return ", ".join(f"{count:,} {words}" for count, words in parts if count)


def _tokens(tokens: Mapping[str, Any]) -> str:
    if tokens.get("training") is None:
        return ""
    trained = f", of which {tokens['trained']:,} are learned" if tokens.get("trained") is not None else ""
    return f"{tokens['training']:,} in an epoch{trained}"


def _warning(warning: Any) -> str:
    if not isinstance(warning, Mapping):
        return str(warning)
    return in_flags(sentences(str(warning.get("message", "")), warning.get("next_action")))


def _show_probe(probe: Mapping[str, Any]) -> None:
    losses = [loss for loss in probe.get("train_loss") or [] if loss is not None]
    pace = f", {probe['tokens_per_second']:,.0f} tokens/s" if probe.get("tokens_per_second") else ""
    say(f"\n{probe.get('steps', len(losses))} real steps, now thrown away: {duration(probe.get('seconds', 0))}{pace}")
    if not losses:
        return
    say(f"  training loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    screen = console()
    if screen.is_terminal:
        chart = LossChart(steps=len(losses))
        for step, loss in enumerate(losses, 1):
            chart.add(step, loss)
        screen.print(chart)
