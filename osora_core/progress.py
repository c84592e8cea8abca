"""How far a long computation is, for whoever called it from above: see `watching`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[int, int], object]

_WATCHER: ContextVar[Watcher | None] = ContextVar("osora_progress", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """`watcher(done, total)` is called by what this thread computes meanwhile, each time that a part is done."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def tell(done: int, total: int) -> None:
    """Tell whoever watches, if somebody does."""
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher(done, total)
