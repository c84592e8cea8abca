"""The thread that owns an engine, and the bridge from it to asyncio."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from inference.errors import ServerError
from inference.metering import Account
from inference.pace import Pace
from osora_core.errors import OsoraCoreError
from osora_core.inference import AdapterRow, InferenceEngine, LoraRow, Output, Request
from osora_core.inference.request import Computed
from osora_core.runtime import set_threads

logger = logging.getLogger(__name__)

Outputs = asyncio.Queue[Output | Exception]


class EngineLoop:
    """Runs `engine.step()` while there is work. Commands are drained between steps; a step's outputs reach asyncio in
    one call. If the engine ever fails, every request is told, `alive` turns false, and `on_death` is called."""

    def __init__(self, engine: InferenceEngine, *, queue_limit: int, on_death: Callable[[], None]) -> None:
        self.engine = engine
        self.alive = True
        self._places = engine.rows + queue_limit
        self._taken: Counter[str] = Counter()
        self._pace = Pace()
        self._on_death = on_death
        self._listeners: dict[str, Outputs] = {}
        self._accounts: dict[str, Account] = {}
        self._commands: list[Callable[[], None]] = []
        self._examinations: set[Future[Tensor]] = set()
        self._wake = threading.Condition()
        self._stopping = False
        self._ended = False
        self._asyncio = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="inference-engine", daemon=True)
        self._thread.start()

    @contextmanager
    def place(self, tenant: str, count: int) -> Iterator[None]:
        """Hold places in the queue, from before anything is loaded for a request until it has ended.

        A tenant may take no more places than it leaves free for others, so that a flood of one fills no queue.
        Raises ServerError: 429 when too many are taken, 503 when the engine died.
        """
        if not self.alive:
            raise _stopped()
        free = self._places - self._taken.total()
        if self._taken[tenant] + count > free:
            raise ServerError(
                429, "rate_limit_error", "overloaded",
                f"{self._taken.total()} requests run or wait, {self._taken[tenant]} of them your own",
                next_action="try again in a moment", retry_after=1,
            )  # fmt: skip
        self._taken[tenant] += count
        try:
            yield
        finally:
            self._taken[tenant] -= count
            if not self._taken[tenant]:
                del self._taken[tenant]

    @property
    def is_busy(self) -> bool:
        """Whether a request has a place."""
        return bool(self._taken)

    def load(self) -> dict[str, float]:
        """How much there is to do, and how much room is taken."""
        engine = self.engine
        return {
            "running": engine.running,
            "waiting": engine.waiting,
            "rows": engine.rows,
            "tokens_per_second": self._pace.per_second,
            "adapters": engine.slots.resident,
            "adapter_slots": engine.slots.bank.capacity,
            "lora_ranks": engine.loras.bank.ranks_in_use,
            "lora_capacity": engine.loras.bank.capacity,
        }

    def submit(self, requests: Sequence[Request], account: Account) -> Outputs:
        """Hand checked requests to the engine; the outputs of all come through one queue.

        `account` is told what each has computed, to its end, whoever still listens.
        """
        outputs: Outputs = asyncio.Queue()
        self._listeners |= dict.fromkeys((request.id for request in requests), outputs)
        self._accounts |= dict.fromkeys((request.id for request in requests), account)
        for request in requests:
            self._command(partial(self.engine.add, request))
        return outputs

    def finish(self, request_ids: Iterable[str]) -> None:
        """Forget requests; those that are still running are cancelled at the next step."""
        for request_id in request_ids:
            if self._listeners.pop(request_id, None) is not None:
                self._command(partial(self._cancel, request_id))

    def _cancel(self, request_id: str) -> None:
        self._call(self._settle, request_id, self.engine.cancel(request_id))

    def _settle(self, request_id: str, computed: Computed | None) -> None:
        account = self._accounts.pop(request_id, None)
        if account is not None:
            account.left(request_id, computed)

    def examine(self, adapter: AdapterRow | LoraRow, tokens: Sequence[int], ids: Tensor) -> "Future[Tensor]":
        """What `InferenceEngine.examine` answers, no later than what is submitted from now on. For any thread.

        The future raises what the engine raises, and ServerError 503 if the engine ends before.
        """
        answer: Future[Tensor] = Future()

        def begin() -> None:
            try:
                self.engine.examine(adapter, tokens, ids, answer)
            except Exception as error:
                answer.set_exception(error)

        with self._wake:
            if self._ended:
                answer.set_exception(_stopped())
                return answer
            self._examinations.add(answer)
        answer.add_done_callback(self._forget)
        self._command(begin)
        return answer

    def _forget(self, answer: "Future[Tensor]") -> None:
        with self._wake:
            self._examinations.discard(answer)

    def drop(self, is_unwanted: Callable[[str], bool]) -> None:
        """Erase the adapters with such keys, as soon as no request uses them."""
        self._command(partial(self.engine.held.drop, is_unwanted))

    def stop(self) -> None:
        """End the thread after its current step; nobody gets a place any more."""
        self.alive = False
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _command(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    def _run(self) -> None:
        set_threads()
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._commands or self._stopping or self.engine.busy)
                    if self._stopping:
                        return
                    commands, self._commands = self._commands, []
                for command in commands:
                    command()
                if self.engine.busy:
                    self._call(self._deliver, self.engine.step())
        except Exception as error:
            logger.exception("the inference engine failed")
            self._call(self._die, error)
        finally:
            with self._wake:
                self._ended = True
                for answer in list(self._examinations):
                    answer.set_exception(_stopped())

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._asyncio.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The event loop is closed: the process is on its way out and nobody waits for outputs any more.
            logger.debug("an engine step ended after the event loop had closed")

    def _deliver(self, outputs: list[Output]) -> None:
        self._pace.count(sum(output.error is None for output in outputs))
        for output in outputs:
            account = self._accounts.get(output.request_id)
            if account is not None:
                account.computed(output.request_id, output)
            if output.finish_reason is not None:
                self._accounts.pop(output.request_id, None)
            listener = self._listeners.get(output.request_id)
            if listener is None:
                continue
            if output.error is not None and not isinstance(output.error, OsoraCoreError):
                logger.error("request %s failed", output.request_id, exc_info=output.error)
            listener.put_nowait(output.error or output)
            if output.finish_reason is not None:
                del self._listeners[output.request_id]

    def _die(self, error: Exception) -> None:
        self.alive = False
        for listener in self._listeners.values():
            listener.put_nowait(error)
        self._listeners.clear()
        self._accounts.clear()  # what our own end cuts off is charged to nobody
        self._on_death()


def _stopped() -> ServerError:
    return ServerError(503, "service_unavailable_error", "engine_stopped", "the inference engine has stopped")
