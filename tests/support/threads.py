"""Threads that start together."""

import threading
from collections.abc import Callable


def in_parallel(count: int, work: Callable[[int], object]) -> None:
    """Runs `work(0)` to `work(count - 1)` at once; raises what the first to fail raised."""
    barrier = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
