"""What befalls a worker, and where: written by a test, read by the worker's process."""

import errno
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from worker import points

Action = Literal["kill", "stop", "oversleep", "terminate", "disk_full"]
_writing = threading.Lock()
SLOW_ROWS = "slow"
"""A word in the answers of rows that take longer to read; see `Orders.slow_row`."""
MID_STEP = "mid_step"
"""A point inside the engine's step, between forward and backward; production has no name for it."""


@dataclass(frozen=True)
class Strike:
    """`action` at the `nth` time that an attempt (at `job_id`, if given) is at `point`, `times` times in a row."""

    point: str
    action: Action
    nth: int = 1
    times: int = 1
    job_id: str | None = None


@dataclass(frozen=True)
class Orders:
    """A worker's orders: its strike, if any; seconds that each step takes longer; by how much its clock is wrong.

    `watch_slots`: whether each step says in the log how many of the engine's slots are taken, and by how many jobs.
    `slow_row`: seconds that reading each of SLOW_ROWS takes longer.
    """

    strike: Strike | None = None
    slow_step: float = 0.0
    clock_offset: float = 0.0
    watch_slots: bool = False
    slow_row: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Orders":
        values = json.loads(text)
        strike = values.pop("strike")
        return cls(strike=Strike(**strike) if strike else None, **values)


def obey(orders: Orders, struck: Path) -> None:
    """Arrange for the orders in this process; `struck` is the file that appears when the strike falls."""
    if orders.clock_offset:
        right = time.time
        time.time = lambda: right() + orders.clock_offset
    strike, seen, asleep = orders.strike, 0, _Asleep()

    def observe(point: str, job_id: str) -> None:
        nonlocal seen
        if point == "claimed":
            asleep.wake()
        if strike is None or point != strike.point or (strike.job_id or job_id) != job_id:
            return
        seen += 1
        if strike.nth <= seen < strike.nth + strike.times:
            struck.touch()
            if strike.action == "oversleep":
                asleep.begin()
            _act(strike.action)
            asleep.wait()

    points.observe(observe)
    _watch_writers()
    _slow_down(orders.slow_step, observe, orders.watch_slots)
    _slow_down_reading(orders.slow_row)
    _delay_heartbeats(asleep)


class _Asleep:
    """What a process that oversleeps does not get to before it has claimed another job: the step that it was in, and
    its heartbeat. Whichever thread is scheduled first after a sleep is chance; here it is the one that claims."""

    def __init__(self) -> None:
        self._awake = threading.Event()
        self._awake.set()

    def begin(self) -> None:
        self._awake.clear()

    def wake(self) -> None:
        self._awake.set()

    def wait(self) -> None:
        self._awake.wait()


def _act(action: Action) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop" | "oversleep":
            # Whoever is stopped with SQLite's one write lock in its hands stops everybody: not what is tested here.
            # To this very thread: a signal to the process may find another first, and this one goes on for a moment.
            with _writing:
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        case "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        case "disk_full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _watch_writers() -> None:
    """Hold `_writing` from the beginning of a transaction that writes to SQLite until its connection is given back."""

    @event.listens_for(Engine, "begin")
    def begun(connection: Connection) -> None:
        if connection.dialect.name == "sqlite" and not connection.get_execution_options().get("osora_read_only"):
            _writing.acquire()
            connection.info["writing"] = True

    @event.listens_for(Pool, "checkin")
    def given_back(connection: object, record: ConnectionPoolEntry) -> None:
        if record.info.pop("writing", False):
            _writing.release()


def _delay_heartbeats(asleep: _Asleep) -> None:
    from worker.node import Node

    watch = Node._watch

    def late(self: Node) -> None:
        asleep.wait()
        watch(self)

    Node._watch = late  # type: ignore[method-assign]


def _slow_down(seconds: float, observe: points.Observer, watch_slots: bool) -> None:
    from osora_core.training import TrainingEngine
    from osora_core.training.passes import Passes

    step, forward = TrainingEngine.step, Passes.forward
    running = ""

    def stepping(self: TrainingEngine) -> bool:
        nonlocal running
        running = next(iter(self.jobs), "")
        if watch_slots:
            print(f"{self.bank.capacity - self.bank.free} slots for {len(self.jobs)} jobs", file=sys.stderr, flush=True)
        return step(self)

    def slow(self: Passes, *args: object) -> object:
        result = forward(self, *args)  # type: ignore[arg-type]
        observe(MID_STEP, running)  # type: ignore[arg-type]
        time.sleep(seconds)
        return result

    TrainingEngine.step = stepping  # type: ignore[method-assign]
    Passes.forward = slow  # type: ignore[method-assign, assignment]


def _slow_down_reading(seconds: float) -> None:
    from osora_core.data import Renderer

    render = Renderer.render

    def slow(self: Renderer, row: Any, line: int) -> Any:
        if SLOW_ROWS in str(row):
            time.sleep(seconds)
        return render(self, row, line)

    Renderer.render = slow  # type: ignore[method-assign]


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
