"""The threads of a worker: one that owns an engine, and ones that do something again and again."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from osora_core.runtime import set_threads
from osora_core.training import TrainingEngine

logger = logging.getLogger(__name__)

T = TypeVar("T")


class EngineThread(threading.Thread):
    """Calls `engine.step()` while there are jobs; `call` runs a function on this thread between steps."""

    def __init__(self, engine: TrainingEngine) -> None:
        super().__init__(name="training-engine", daemon=True)
        self.engine = engine
        self._commands: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._wake = threading.Condition()
        self._stopping = False

    def call(self, function: Callable[[TrainingEngine], T]) -> T:
        """What `function(engine)` returns or raises, run at the next step boundary."""
        future: Future[T] = Future()
        with self._wake:
            self._commands.append((lambda: function(self.engine), future))
            self._wake.notify()
        return future.result()

    def stop(self) -> None:
        """End the thread after its current step."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self.join()

    def run(self) -> None:
        set_threads()
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._commands or self._stopping or self.engine.jobs)
                commands, self._commands = self._commands, []
                if self._stopping:
                    for _, future in commands:
                        future.cancel()
                    return
            for function, future in commands:
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)
            if self.engine.jobs:
                self._step()

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception as error:
            # What went wrong was nobody's own part (that ends the one job): every job leaves, and resumes elsewhere.
            logger.exception("a training step failed")
            for job in list(self.engine.jobs.values()):
                self.engine.discard(job.id)
                job.observer.failed(error)


class Periodic(threading.Thread):
    """Calls a function every so many seconds. What it raises is logged, and the next round comes all the same."""

    def __init__(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._seconds = seconds
        self._action = action
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._action()
            except Exception as error:
                logger.warning("%s failed and will be tried again: %s", self.name, error)
