"""The threads of a worker: one that owns an engine, and ones that do something again and again."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from osora_core.runtime import set_threads
from osora_core.training import TrainingEngine
from osora_core.training.errors import DeviceLostError
from registry.outages import first_line

logger = logging.getLogger(__name__)

T = TypeVar("T")

_STOP_SECONDS = 2.0


class EngineThread(threading.Thread):
    """Calls `engine.step()` while there are jobs; `post` and `call` run a function on this thread between steps.

    `on_failure` is called when a step fails as a whole, or a function with DeviceLostError: an engine that did is not
    trusted any more.
    """

    def __init__(self, engine: TrainingEngine, on_failure: Callable[[], None]) -> None:
        super().__init__(name="training-engine", daemon=True)
        self.engine = engine
        self._on_failure = on_failure
        self._commands: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._wake = threading.Condition()
        self._stopping = False

    def post(self, function: Callable[[TrainingEngine], T]) -> Future[T]:
        """Have `function(engine)` run at the next step boundary; in the order of posting."""
        future: Future[T] = Future()
        with self._wake:
            self._commands.append((lambda: function(self.engine), future))
            self._wake.notify()
        return future

    def call(self, function: Callable[[TrainingEngine], T]) -> T:
        """What `function(engine)` returns or raises, run at the next step boundary."""
        return self.post(function).result()

    def stop(self, seconds: float) -> None:
        """End the thread after its current step; a step that takes longer than `seconds` ends with the process."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self.join(seconds)

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
                if not future.set_running_or_notify_cancel():  # nobody waits for it any more
                    continue
                try:
                    future.set_result(function())
                except DeviceLostError as error:
                    future.set_exception(error)
                    self._on_failure()
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
                self.engine.discard(job)
                job.observer.failed(error)
            self._on_failure()


class Periodic(threading.Thread):
    """Calls a function at once and then every so many seconds. What it raises is logged, and it is called again."""

    def __init__(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._seconds = seconds
        self._action = action
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the thread after the call that it is in; one that hangs ends with the process."""
        self._stopped.set()
        self.join(_STOP_SECONDS)

    def run(self) -> None:
        while True:
            try:
                self._action()
            except Exception as error:
                logger.warning("%s failed and will be tried again: %s", self.name, first_line(error))
            if self._stopped.wait(self._seconds):
                return
