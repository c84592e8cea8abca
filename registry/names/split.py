"""Which of several targets a request goes to."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar


class Weighted(Protocol):
    """What may be chosen, under a name that stays the same while weights change."""

    @property
    def target(self) -> str:
        """The name."""
        ...

    @property
    def weight(self) -> int:
        """Its share, compared with the others' weights."""
        ...


Option = TypeVar("Option", bound=Weighted)


def choose(alias: str, options: Sequence[Option], key: bytes) -> Option:
    """The option for this key: the same in every process, and each for as many keys as its weight says.

    Weighted rendezvous hashing: an option's score depends on nothing but itself and the key, so that a change of one
    weight moves keys only to that option or away from it, and no more than it must.
    """
    return max(options, key=lambda option: _score(f"{alias}\0{option.target}\0".encode() + key, option.weight))


def _score(hashed: bytes, weight: int) -> float:
    # The 53 bits that a float holds, and a half, so that it is neither 0 nor 1.
    number = int.from_bytes(blake2b(hashed, digest_size=8).digest()) >> 11
    return -weight / math.log((number + 0.5) / 2**53)
