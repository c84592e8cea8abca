"""What there is to say of an adapter: where it came from, what it changed, who calls it by another name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from console.words import loss
from osora.schemas import Adapter, Alias, Event

# Of an evaluation: its name there and here, how it is written, and whether a higher one is better.
_MEASURES = (
    ("valid_loss", "Validation loss", ".3f", False),
    ("valid_exact_match", "Exact match", ".0%", True),
    ("valid_mean_token_accuracy", "Tokens right", ".1%", True),
    ("valid_reward_accuracy", "Preferred answers likelier", ".0%", True),
    ("valid_reward_margin", "Margin", ".2f", True),
)


@dataclass(frozen=True)
class Change:
    """A figure of the base before training, and of the adapter."""

    name: str
    before: str
    after: str
    is_better: bool
    after_step: int


def before_and_after(events: Iterable[Event], step: int | None) -> list[Change]:
    """What the job's evaluations say: from that before the first step to that of `step`, else to the best one."""
    evaluations = sorted(
        (data for event in events if {"step", "valid_loss"} <= (data := event.get("data") or {}).keys()),
        key=lambda data: int(data["step"]),
    )
    if len(evaluations) < 2 or evaluations[0]["step"] != 0:
        return []
    before = evaluations[0]
    after = next((data for data in evaluations if data["step"] == step), None) or min(
        evaluations[1:], key=lambda data: float(data["valid_loss"])
    )
    return [
        _change(name, label, form, higher, before, after)
        for name, label, form, higher in _MEASURES
        if before.get(name) is not None and after.get(name) is not None
    ]


def _change(
    name: str, label: str, form: str, higher: bool, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Change:
    was, is_now = float(before[name]), float(after[name])
    better = is_now > was if higher else is_now < was
    return Change(label, _written(was, form), _written(is_now, form), better, int(after["step"]))


def _written(value: float, form: str) -> str:
    return loss(value, form) if form == ".3f" else format(value, form)


def origin(adapter: Adapter) -> str:
    """Where it came from, in words."""
    if adapter.get("job_id") is None:
        return "Brought from elsewhere"
    step = adapter.get("step")
    return "Trained here" if step is None else f"Trained here, state of step {step}"


def short_name(name: str) -> str:
    """The part of a model's name that somebody chose: `tickets` of `ft:osora-tiny:acme:tickets:1a2b`."""
    parts = name.split(":")
    if name.startswith("ft:") and len(parts) >= 5:
        return parts[3] or parts[4]
    return name


def shares(weights: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Each target of an alias with its weight and its share of the requests."""
    whole = sum(weights.values())
    return [(name, weight, f"{100 * weight / whole:.3g} %") for name, weight in weights.items()]


def aliases_of(aliases: Iterable[Alias], names: Iterable[str]) -> list[Alias]:
    """Those that stand for one of these, alone or among others."""
    wanted = set(names)
    return [alias for alias in aliases if wanted & alias["targets"].keys()]
