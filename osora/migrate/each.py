"""Work on many things at once, with few of them in memory."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    concurrency: int,
    abandoned: Callable[[Future[Result]], object] = lambda future: future.cancel(),
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Does the work for each item, `concurrency` at once; gives item and result as they are done.

    The next item is taken when there is room for it. Close it where it may end early: `abandoned` hears of all work
    that is under way then, and may wait for it.
    """
    waiting: dict[Future[Result], Item] = {}
    source = iter(items)
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                for item in source:
                    waiting[pool.submit(work, item)] = item
                    if len(waiting) == concurrency:
                        break
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future
        finally:
            for future in waiting:
                abandoned(future)
