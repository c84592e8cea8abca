"""Named points on an attempt's way, where the fault suite strikes.

In production nobody observes them, and no setting can change that: only a test's own program calls `observe`, before it
starts a worker in its own process.
"""

from collections.abc import Callable
from typing import Literal

Point = Literal[
    "claimed",
    "joined",
    "stepped",
    "checkpoint_uploading",
    "checkpoint_uploaded",
    "checkpoint_recorded",
    "adapter_uploading",
    "adapter_uploaded",
    "completed",
]
Observer = Callable[[Point, str], None]

_observer: Observer | None = None


def observe(observer: Observer) -> None:
    """Have `observer(point, job_id)` called at every point, on the attempt's thread; what it raises goes on."""
    global _observer
    _observer = observer


def reached(point: Point, job_id: str) -> None:
    """Say that an attempt is at a point."""
    if _observer is not None:
        _observer(point, job_id)
