"""Figures as people read them."""

import time

from osora.cli.output import duration, human_bytes, when
from osora.schemas import Job

__all__ = ["age", "clock", "count", "duration", "figure", "human_bytes", "name_of", "share", "state", "when"]

_STATES = {"validating_files": "validating"}


def age(timestamp: float | None, now: float | None = None) -> str:
    """`3 min`; empty for no time at all."""
    if timestamp is None:
        return ""
    seconds = max((time.time() if now is None else now) - timestamp, 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "just now"


def clock(timestamp: float | None) -> str:
    """`14:05:09`."""
    return time.strftime("%H:%M:%S", time.localtime(timestamp)) if timestamp else ""


def count(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def figure(value: float | None, form: str = ".4f") -> str:
    """A number, or a dash where there is none."""
    return "—" if value is None else format(value, form)


def loss(value: float | None, form: str = ".4g") -> str:
    """A loss in nats: four digits, and of a very small one only that it is."""
    return "< 0.001" if value is not None and 0 <= value < 0.001 else figure(value, form)


def share(value: float | None) -> str:
    """`75%`, or a dash."""
    return figure(value, ".0%")


def name_of(job: Job) -> str:
    """What to call a job: what its person called it, or else the end of its id."""
    return job.get("user_provided_suffix") or job["id"][-8:]


def state(job: Job) -> str:
    """Its status in a word, and what was asked of it and has not come about."""
    status: str = job["status"]
    asked = (job.get("osora") or {}).get("requested")
    words = {"cancel": "cancelling", "pause": "pausing"}
    return words[asked] if asked and status == "running" else _STATES.get(status, status)
