"""What a training method is: how its rows are read, what they contribute to a step, and what is measured of them.

Every method's loss is a weighted sum of token losses, so that jobs of all methods go through the model together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

import osora_data
from osora_core.data import Example, Renderer, Row
from osora_core.training.passes import Passes
from osora_core.training.reference import Reference
from osora_core.training.spec import JobSpec


@dataclass(frozen=True)
class Figures:
    """Of one step, or of a set of rows. Loss and accuracy are the method's own: nats a token for instance, or a pair.
    `reward_margin` is None where the method has none."""

    loss: float
    accuracy: float
    reward_margin: float | None = None


@dataclass(frozen=True)
class Contribution:
    """What a job brings to a step: rows (example, index into `shares`), and what each share multiplies the summed token
    losses of its rows with. `known` are the step's figures, where they are known before its passes."""

    rows: list[tuple[Example, int]]
    shares: list[float]
    known: Figures | None = None

    @property
    def tokens(self) -> int:
        """All that are read, prompts included."""
        return sum(len(row) for row, _ in self.rows)

    def figures(self, losses: Sequence[float], hits: Sequence[float]) -> Figures:
        """Those that are known, or else those that the summed losses and hits of the only share's rows tell."""
        if self.known is not None:
            return self.known
        (share,) = self.shares
        return Figures(losses[0] * share, hits[0] * share)


class Learner(Protocol):
    """What a method knows of a job: its spec, and the bank's slots of what it trains and compares with."""

    @property
    def spec(self) -> JobSpec: ...
    @property
    def slot(self) -> int: ...
    @property
    def reference(self) -> Reference: ...


class Method(Protocol):
    """How a job learns from its rows. Methods have no state: everything that is a job's own comes with it."""

    @property
    def row_type(self) -> type[Row]:
        """What its rows are. The first of a row's `sequences` is the answer that an exact match is measured on."""

    @property
    def needs_reference(self) -> bool:
        """Whether jobs are compared with what they began with: the bare base, or an adapter in a slot of its own."""

    def render(self, row: osora_data.Row, renderer: Renderer) -> Row:
        """A row of a file. Raises DataError where it cannot be used, RowTooLongError where it is too long."""

    def contributions(
        self, stepping: Sequence[tuple[Learner, Sequence[Row]]], passes: Passes
    ) -> Sequence[Contribution]:
        """What each of these jobs brings with the batch beside it. May make passes without gradients."""

    def figures(self, job: Learner, rows: Sequence[Row], losses: Tensor, hits: Tensor, passes: Passes) -> Figures:
        """What is measured of a job on rows, by the summed losses and counts of likeliest tokens of their sequences
        (both [sequences], in the order of `osora_core.data.sequences`)."""
