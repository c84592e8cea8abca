"""What a sweep knows of its members, keeps in its checkpoints, and leaves behind."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from osora_core.errors import CorruptArtifact
from osora_core.training.checkpoint import Checkpoint
from osora_core.training.curve import Curve
from osora_core.training.job import Outcome
from osora_core.training.spec import JobSpec

Fate = Literal["chosen", "discarded", "diverged"]

_SWEEP = "sweep"


def halvings(members: int, total_steps: int) -> list[int]:
    """The steps after which the worse half goes: as often as it takes to leave one member, evenly over the schedule,
    because early losses say little of where a rate that falls to zero ends. A short schedule has fewer."""
    rounds = math.ceil(math.log2(members))
    steps = {round(total_steps * number / (rounds + 1)) for number in range(1, rounds + 1)}
    return sorted(step for step in steps if 0 < step < total_steps)


@dataclass(eq=False)
class Member:
    """One spec of a sweep. `measured`: its loss (an Evaluation's) on the rows to choose by, by step; `fate`: what
    became of it after `ended_at` steps, None while it is in the running; `state`: its last checkpoint while it is."""

    spec: JobSpec
    curve: Curve = field(default_factory=Curve)
    measured: dict[int, float] = field(default_factory=dict)
    fate: Fate | None = None
    ended_at: int | None = None
    state: Checkpoint | None = None

    @property
    def loss(self) -> float:
        """What it is judged by: the last measurement, infinite before the first and where that was no number."""
        last = next(reversed(self.measured.values()), math.inf)
        return last if math.isfinite(last) else math.inf

    def end(self, fate: Fate, step: int, curve: Curve) -> None:
        """Settle what becomes of it, with its curve to keep."""
        self.fate, self.ended_at, self.curve, self.state = fate, step, curve, None

    def row(self) -> dict[str, Any]:
        """What an event says of it."""
        return {
            **self.spec.rates(),
            "rank": self.spec.rank,
            "mix": self.spec.mix,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "fate": self.fate,
        }


@dataclass(frozen=True)
class Rung:
    """The members side by side after `step` steps: who was discarded there, and who goes on."""

    step: int
    total_steps: int
    members: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class SweepOutcome(Outcome):
    """What the chosen member leaves, its spec, and the curves of the whole family as CSV.

    `choice_losses`: on the rows to choose by, of what it began with and of what it leaves, where its curve has no
    evaluation that tells whether it has become better.
    """

    spec: JobSpec
    family: str
    choice_losses: tuple[float, float] | None = None


@dataclass(frozen=True)
class SweepCheckpoint(Checkpoint):
    """The state of every member still in the running, and the curves of the others.

    As a `Checkpoint` it is the leading member's, under the identity of the sweep.
    """

    members: Sequence[Member] = ()
    rung: int = 0
    """How many halvings lie behind it."""

    @classmethod
    def of(cls, leader: Checkpoint, identity: str, members: Sequence[Member], rung: int) -> Self:
        values = {f.name: getattr(leader, f.name) for f in fields(Checkpoint)}
        return cls(**{**values, "identity": identity}, members=members, rung=rung)

    def to_bytes(self) -> bytes:
        """A file that `Checkpoint.from_bytes` reads as the leader's, with the members beside it."""
        leader = super().to_bytes()
        tensors = load(leader)
        for index, member in enumerate(self.members):
            if member.state is not None:
                tensors[f"member.{index}"] = torch.frombuffer(bytearray(member.state.to_bytes()), dtype=torch.uint8)
        sweep = {"rung": self.rung, "members": [_member_to_json(member) for member in self.members]}
        return save(tensors, metadata={**_metadata(leader), _SWEEP: json.dumps(sweep)})

    @classmethod
    def from_bytes(cls, data: bytes, sha256: str) -> Self:
        """Read a sweep's checkpoint; raises CorruptArtifact as `Checkpoint.from_bytes` does, and for a single job's."""
        leader = Checkpoint.from_bytes(data, sha256)
        try:
            sweep, tensors = json.loads(_metadata(data)[_SWEEP]), load(data)
            members = [
                _member_from_json(row, tensors.get(f"member.{index}")) for index, row in enumerate(sweep["members"])
            ]
            return cls.of(leader, leader.identity, members, sweep["rung"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"the sweep's checkpoint cannot be parsed: {error}") from error


def _metadata(data: bytes) -> dict[str, str]:
    header_length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + header_length])["__metadata__"]
    return metadata


def _member_to_json(member: Member) -> dict[str, Any]:
    row: dict[str, Any] = {
        "spec": member.spec.to_dict(),
        "measured": list(member.measured.items()),
        "fate": member.fate,
        "ended_at": member.ended_at,
    }
    if member.state is None:
        row["curve"] = [member.curve.losses, member.curve.accuracies, member.curve.evaluation_rows()]
    return row


def _member_from_json(row: dict[str, Any], state: Tensor | None) -> Member:
    member = Member(
        JobSpec.from_dict(row["spec"]),
        measured={step: loss for step, loss in row["measured"]},
        fate=row["fate"],
        ended_at=row["ended_at"],
    )
    if state is None:
        member.curve = Curve.from_parts(*row["curve"])
    else:
        data = state.numpy().tobytes()
        # The hash of the whole file has been checked: this part needs no other.
        member.state = Checkpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
        member.curve = member.state.curve
    return member


def family_csv(members: Sequence[Member]) -> str:
    """All members' curves, a line a member and step: rates, losses, and at its last line what became of it.

    `sweep_loss` is the loss on the rows to choose by; `mix_rate` is there where they have a mix, `rank` and
    `mix` where they differ in those. Numbers are written so
    that they read back as the same floats.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list({name: None for member in members for name in member.spec.rates()})
    if len({member.spec.shape for member in members}) > 1:
        names += ["rank", "mix"]
    writer.writerow([*names, "step", "train_loss", "valid_loss", "sweep_loss", "outcome"])
    for member in members:
        of_member = {**member.spec.rates(), "rank": member.spec.rank, "mix": member.spec.mix}
        rates = [repr(of_member[name]) if name in of_member else "" for name in names]
        valid = {evaluation.step: repr(evaluation.loss) for evaluation in member.curve.evaluations}
        measured = {step: repr(loss) for step, loss in member.measured.items()}
        losses = dict(enumerate(map(repr, member.curve.losses), start=1))
        last = len(member.curve.losses) if member.ended_at is None else member.ended_at
        first = 0 if 0 in valid or last == 0 else 1
        for step in range(first, last + 1):
            outcome = (member.fate or "") if step == last else ""
            writer.writerow([*rates, step, losses.get(step, ""), valid.get(step, ""), measured.get(step, ""), outcome])
    return text.getvalue()
