"""The list of attacks, filled by `@attack`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.abuse.attacker import Attacker

Strike = Callable[[Attacker], Awaitable[None]]

ATTACKS: dict[str, "Attack"] = {}


@dataclass(frozen=True)
class Attack:
    """A strike, and how many of it go on at the same time, one after the other, until time is over."""

    name: str
    about: str
    strike: Strike
    at_once: int
    prepare: Strike | None


def attack(name: str, *, at_once: int = 4, prepare: Strike | None = None) -> Callable[[Strike], Strike]:
    """Puts a strike on the list. `prepare` makes what it needs before any time is measured."""

    def register(strike: Strike) -> Strike:
        about = (strike.__doc__ or "").splitlines()[0]
        ATTACKS[name] = Attack(name, about, strike, at_once, prepare)
        return strike

    return register
