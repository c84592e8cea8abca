"""Ranks: how many singular triplets a basis keeps of each weight, and how many of them an adapter uses.

A weight whose smaller side is below a rank uses what it has. The largest smaller side of a base's weights is its full
rank: more than that nothing has.
"""

from dataclasses import dataclass
from typing import Literal

Rank = int | Literal["full"]
"""So many triplets, or as many as there are."""

DEFAULT_RANK = 128


def default_rank(parameters: int | None = None) -> int:
    """The rank of an adapter, and of a basis, of a base with so many parameters, where nobody says another."""
    return DEFAULT_RANK


def installed_rank(setting: Rank | Literal["auto"], parameters: int | None = None) -> Rank:
    """The rank of a base's basis by OSORA_BASIS_RANK; `auto` is the default of a base of this size."""
    return default_rank(parameters) if setting == "auto" else setting


@dataclass(frozen=True)
class Ranks:
    """What ranks an adapter of a base can have here, as far as that is known.

    parameters: of the base. held: triplets in its basis as it is loaded. full: the largest full rank of the weights
    that the adapter is of.
    """

    parameters: int | None = None
    held: int | None = None
    full: int | None = None

    @property
    def most(self) -> int | None:
        """The highest rank that an adapter can have."""
        known = [rank for rank in (self.held, self.full) if rank is not None]
        return min(known, default=None)

    def resolved(self, asked: Rank | None) -> int:
        """The rank of an adapter of which this was asked: the default, as far as there is so much, where that is
        nothing. `refusal` says whether it can be had."""
        if asked is None:
            default = default_rank(self.parameters)
            return default if self.most is None else min(default, self.most)
        if asked == "full":
            return self.full or self.held or default_rank(self.parameters)
        return asked

    def refusal(self, asked: Rank | None) -> tuple[str, str] | None:
        """Why this rank cannot be had, in one sentence, and what to do; None if it can, as far as is known."""
        rank = self.resolved(asked)
        if self.full is not None and rank > self.full:
            return (
                f"osora.rank is {rank}, and the largest full rank of the base's targeted weights is {self.full}",
                f"use 1 to {self.most}" if self.held is not None and self.held < self.full else
                f"use 1 to {self.full}, or full",
            )  # fmt: skip
        if self.held is not None and rank > self.held:
            what = f"full, which is {rank} here" if asked == "full" else str(rank)
            return (
                f"osora.rank is {what}, over the basis's rank {self.held}",
                f"use 1 to {self.held}, or have whoever runs the service raise OSORA_BASIS_RANK",
            )
        return None


ANY_RANK = Ranks()
"""Nothing is known of the base."""
