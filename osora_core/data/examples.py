"""What the engine trains on: token sequences with a loss mask, and pairs of them."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol


@dataclass(frozen=True)
class Example:
    """One training sequence: token ids, and for each whether the loss counts its prediction. `line` is 1-based;
    `is_cut`: whether its row went on, beyond what is read of it."""

    tokens: tuple[int, ...]
    mask: tuple[bool, ...]
    line: int
    is_cut: bool = False

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sequences(self) -> tuple["Example"]:
        """What goes through the model of it."""
        return (self,)

    @cached_property
    def loss_tokens(self) -> int:
        """Predictions that count: the first token has none."""
        return sum(self.mask[1:])

    @property
    def prompt(self) -> tuple[int, ...]:
        """What comes before the first answer that is learned."""
        return self.tokens[: self.mask.index(True)]

    @property
    def answers(self) -> list[tuple[int, int]]:
        """Where each trained answer begins and ends: tokens [begin, end)."""
        edges = [i for i, (a, b) in enumerate(zip((False, *self.mask), (*self.mask, False), strict=True)) if a != b]
        return list(zip(edges[::2], edges[1::2], strict=True))

    @property
    def content(self) -> bytes:
        """All that decides what is learned from it, its length first: to be hashed, one after another."""
        return len(self).to_bytes(4, "little") + array("q", self.tokens).tobytes() + bytes(self.mask)


@dataclass(frozen=True)
class Preference:
    """Two answers to one conversation, of which the model is to prefer `chosen`. Tokens are those of both."""

    chosen: Example
    rejected: Example
    line: int

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def is_cut(self) -> bool:
        """Whether an answer of it is."""
        return self.chosen.is_cut or self.rejected.is_cut

    @property
    def prompt(self) -> tuple[int, ...]:
        """What comes before both answers."""
        return self.chosen.prompt

    @property
    def sequences(self) -> tuple[Example, Example]:
        return self.chosen, self.rejected

    @property
    def loss_tokens(self) -> int:
        return self.chosen.loss_tokens + self.rejected.loss_tokens

    @property
    def content(self) -> bytes:
        return self.chosen.content + self.rejected.content


class Row(Protocol):
    """What a training method learns from: an `Example`, a `Preference`, or what a further method has."""

    @property
    def line(self) -> int:
        """1-based, in the file that was given."""

    @property
    def is_cut(self) -> bool:
        """Whether it is less than its line has: see `Example`."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """What comes before its first answer."""

    def __len__(self) -> int:
        """Tokens of all its sequences."""

    @property
    def sequences(self) -> tuple[Example, ...]:
        """What goes through the model of it."""

    @property
    def loss_tokens(self) -> int:
        """Predictions that count, of all its sequences."""

    @property
    def content(self) -> bytes:
        """All that decides what is learned from it."""


def sequences(rows: Sequence[Row]) -> list[Example]:
    """What goes through the model of rows of one kind: the first sequence of each (of preferences the preferred
    answer), then the second of each."""
    return [sequence for side in zip(*(row.sequences for row in rows), strict=True) for sequence in side]
