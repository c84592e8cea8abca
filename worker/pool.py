"""Celery's pool of threads, one that says when a thread of it is free."""

from collections.abc import Callable
from typing import Any

from celery.concurrency.thread import ApplyResult, TaskPool
from kombu.asynchronous import get_event_loop


class Pool(TaskPool):  # type: ignore[misc]
    """A worker that reads no message ahead looks for one only when its event loop turns.

    While all threads are busy, that happens every second or less often, so each thread that ends turns it. Messages are
    read while fewer threads are busy than `claimable` says.
    """

    claimable: Callable[[], int]

    @classmethod
    def of(cls, claimable: Callable[[], int]) -> type["Pool"]:
        """The kind of pool whose limit this is; that of its threads is higher."""
        return type("NodePool", (cls,), {"claimable": staticmethod(claimable)})

    @property
    def num_processes(self) -> int:
        """What Celery goes by."""
        return self.claimable()

    def on_apply(self, *args: Any, **kwargs: Any) -> ApplyResult:
        """Hand a task to a thread."""
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(lambda _: _turn_the_loop())
        return result


def _turn_the_loop() -> None:
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(_nothing)  # type: ignore[no-untyped-call]


def _nothing() -> None:
    """What the loop has to do for being woken: it looks for messages each time that it turns."""
