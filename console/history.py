"""What a job's events tell, as its page shows it: curves, samples, and what happened. Events may come twice, and steps
that a later attempt takes again count as it took them."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from osora.schemas import Event

Curve = dict[int, float]

_OF_STEPS = ("train_loss", "learning_rate", "tokens_per_second", "train_reward_accuracy", "train_reward_margin")
_OF_EVALUATIONS = ("valid_loss", "valid_exact_match", "valid_reward_accuracy", "valid_reward_margin")
_WORDS = {"learning_rate": "lr", "sigma_rate": "s rate", "mix_rate": "mix rate"}
# Of a member of a sweep, what is not one of its settings.
_NOT_SETTINGS = {"loss", "fate", "step", "train_loss", "valid_loss", "sweep_loss", "outcome"}


@dataclass
class Member:
    """One point of a sweep: its losses on the validation rows whenever the members were compared."""

    settings: dict[str, Any]
    losses: Curve = field(default_factory=dict)
    fate: str | None = None

    @property
    def name(self) -> str:
        """Its settings in words: those that a person named them by."""
        return self.named(self.settings)

    def named(self, settings: Iterable[str]) -> str:
        """Those of its settings that are among these, in words."""
        told = {name: self.settings[name] for name in settings if name in self.settings}
        return ", ".join(f"{_WORDS.get(name, name)} {_short(value)}" for name, value in told.items())


@dataclass(frozen=True)
class Sample:
    """What the job answered to a prompt after a step."""

    step: int
    prompt: str
    text: str


@dataclass
class History:
    """All events of one job so far."""

    curves: dict[str, Curve] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    messages: list[Event] = field(default_factory=list)
    step: int = 0
    total_steps: int | None = None
    remaining_seconds: float | None = None
    is_family_whole: bool = False
    _seen: set[str] = field(default_factory=set)

    def add(self, event: Event) -> bool:
        """Take an event; returns whether it tells of what is read elsewhere: the job itself, its checkpoints."""
        if event["id"] in self._seen:
            return False
        self._seen.add(event["id"])
        data = event.get("data") or {}
        if event.get("type") == "metrics":
            self._measure(data)
            return False
        if {"prompt", "text"} <= data.keys():
            self._sampled(Sample(int(data["step"]), str(data["prompt"]), str(data["text"])))
            return False
        if "members" in data:
            self._compare(int(data["step"]), data["members"])
        self.messages.append(event)
        return True

    def add_family(self, table: str) -> None:
        """Take a sweep's result file: all members' losses, step by step."""
        self.is_family_whole = True
        found: dict[str, Member] = {}
        for row in csv.DictReader(io.StringIO(table)):
            settings = {name: _number(row[name]) for name in row if name not in _NOT_SETTINGS and row[name]}
            member = found.setdefault(Member(settings).name, Member(settings))
            loss = row.get("valid_loss") or row.get("sweep_loss")
            if loss:
                member.losses[int(row["step"])] = float(loss)
            member.fate = row.get("outcome") or member.fate
        self.members = found or self.members

    def latest(self, name: str) -> float | None:
        """The newest value of a curve."""
        curve = self.curves.get(name)
        return curve[max(curve)] if curve else None

    def samples_by_prompt(self) -> dict[str, list[Sample]]:
        """Each prompt's answers, newest first."""
        found: dict[str, list[Sample]] = {}
        for sample in sorted(self.samples, key=lambda sample: -sample.step):
            found.setdefault(sample.prompt, []).append(sample)
        return found

    def _measure(self, data: Mapping[str, Any]) -> None:
        step = int(data["step"])
        self.total_steps = data.get("total_steps", self.total_steps)
        if data.get("train_loss") is not None:
            self.step = step
            self.remaining_seconds = data.get("remaining_seconds")
        for name in (*_OF_STEPS, *_OF_EVALUATIONS):
            if (value := data.get(name)) is not None:
                self.curves.setdefault(name, {})[step] = float(value)

    def _sampled(self, sample: Sample) -> None:
        # Another attempt may come to the same step: its answer is the one that counts.
        same = [old for old in self.samples if (old.step, old.prompt) == (sample.step, sample.prompt)]
        self.samples = [old for old in self.samples if old not in same] + [sample]

    def _compare(self, step: int, members: list[dict[str, Any]]) -> None:
        if self.is_family_whole:  # the table has all of it, and each member with other settings beside its rates
            return
        for told in members:
            settings = {name: value for name, value in told.items() if name not in _NOT_SETTINGS and value is not None}
            name = Member(settings).name
            member = self.members.setdefault(name, Member(settings))
            was_out = member.fate is not None
            member.fate = told.get("fate")
            if told.get("loss") is not None and not was_out:
                member.losses[step] = float(told["loss"])


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
