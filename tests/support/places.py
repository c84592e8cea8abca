"""Places for attempts to run in."""

from worker.places import Place
from worker.reading import Turns


def a_place() -> Place:
    """One where there is always room to train."""
    return Place("tenant", is_guest=False, turns=Turns(), train=lambda place, seconds: True)
