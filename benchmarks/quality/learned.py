"""The interface between the methods and the sweep: learn from examples, then be measured on others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from osora_core.data import Example
from osora_core.training import JobSpec

TOKEN_BUDGET = {"cpu": 4096, "cuda": 24576}
"""Tokens, padding included, that go through the model at once: more no longer fills a GPU better."""
PADDING = {"cpu": 512, "cuda": 6144}
"""Tokens of padding in them that are cheaper than another pass."""


class Score(NamedTuple):
    """Loss in nats a token, and the share of rows whose every counted token is the likeliest: those that greedy
    decoding answers right, to the last token."""

    loss: float
    accuracy: float

    @classmethod
    def of(cls, losses: Sequence[float], right: Sequence[bool], tokens: int) -> "Score":
        """From each row's summed loss and whether it is right."""
        return cls(math.fsum(losses) / tokens, sum(right) / len(right))


@dataclass(frozen=True)
class Learned:
    """What a run has come to: its scores by the name of what it was measured on, and the size of what it stores."""

    scores: Mapping[str, Score]
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Diverged:
    """The loss became no number: this rate is too high for the method."""

    reason: str


class Learner(Protocol):
    """A method. `learn` begins anew from the base each time, trains all specs side by side and measures each on the
    named rows."""

    def learn(
        self, train: Sequence[Example], measured: Mapping[str, Sequence[Example]], specs: Sequence[JobSpec]
    ) -> list[Learned | Diverged]: ...


def budget(device: torch.device) -> tuple[int, int]:
    """TOKEN_BUDGET and PADDING of a device."""
    return TOKEN_BUDGET[device.type], PADDING[device.type]
