"""Starts services in the order of their needs, keeps them running, stops them in the reverse order given."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from osora.serve.service import Service, Spec
from osora.serve.stopping import StopSignals
from osora_common.basis_progress import BasisProgress

MAX_FIRST_CRASHES = 3
"""A service that crashes this often before it ever served is broken: waiting would not mend it."""

PATIENCE_SECONDS = 15.0
PROGRESS_SECONDS = 2.0

OPTIONAL_SECONDS = 10.0
"""So long the others, once they serve, wait for what is optional before they say so."""


@dataclass(frozen=True)
class Notice:
    """Something worth a line: `event` for programs, `message` for people."""

    event: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)


class StartFailedError(Exception):
    """A service cannot be brought up. Carries the end of its log."""

    def __init__(self, service: Service, code: int) -> None:
        super().__init__(f"{service.spec.name} {_end(code)}")
        self.log = service.spec.log
        self.log_tail = service.log_tail()


class RefusedError(Exception):
    """A program was told to do what cannot be done; the message is its own sentence. Trying again would not help."""


class Supervisor:
    """Owns the child processes. `run` is one loop in the calling thread, which must be the main thread."""

    def __init__(self, specs: Sequence[Spec], notify: Callable[[Notice], None]) -> None:
        self.services = {spec.name: Service(spec) for spec in specs}
        self.notify = notify

    def run(self, stop: StopSignals, on_ready: Callable[[], None]) -> None:
        """Bring everything up, call `on_ready` once, and keep it up until a stop is asked for.

        However this ends, no child is left. Raises `StartFailedError` and `RefusedError`.
        """
        announced = False
        told_at, told = time.monotonic(), None
        needed_since: float | None = None
        patience_ends = time.monotonic() + PATIENCE_SECONDS
        try:
            while not stop.asked:
                for service in self.services.values():
                    self._tend(service)
                if needed_since is None and self._all_ready(lambda service: service.spec.optional):
                    needed_since = time.monotonic()
                if not announced and needed_since is not None and self._may_announce(needed_since):
                    announced = True
                    on_ready()
                if not announced and time.monotonic() > told_at + PROGRESS_SECONDS:
                    told_at, told = time.monotonic(), self._tell_progress(told)
                if not announced and time.monotonic() > patience_ends:
                    patience_ends += PATIENCE_SECONDS
                    self._explain_wait()
                stop.wait(1.0 if announced else 0.1)
        finally:
            self._stop_all(stop)

    def _tell_progress(self, told: BasisProgress | None) -> BasisProgress | None:
        """Say how far the computation of a basis is, if that is what a service does, and more than was `told`."""
        starting = (service for service in self.services.values() if service.process is not None and not service.ready)
        found = [one for service in starting if (one := BasisProgress.last_in(service.log_tail())) is not None]
        for progress in found:
            if progress != told and progress.done < progress.total:
                data = {**asdict(progress), "share": round(progress.share, 3)}
                self.notify(Notice("basis", f"  {progress}", data))
                return progress
        return told

    def _all_ready(self, but: Callable[[Service], bool]) -> bool:
        return all(service.ready or but(service) for service in self.services.values())

    def _may_announce(self, needed_since: float) -> bool:
        waited = time.monotonic() - needed_since > OPTIONAL_SECONDS
        return self._all_ready(lambda service: service.spec.optional and (waited or service.given_up))

    def _explain_wait(self) -> None:
        waiting = {s.spec.name: str(s.spec.log) for s in self.services.values() if not s.ready}
        logs = ", ".join(f"{name} ({log})" for name, log in waiting.items())
        self.notify(Notice("waiting", f"  still waiting for {logs}", {"for": list(waiting)}))

    def _tend(self, service: Service) -> None:
        code = service.exit_code()
        if code is not None and not service.finished:
            self._handle_exit(service, code)
        idle = service.process is None and not service.finished and not service.given_up
        met = all(self.services[name].ready for name in service.spec.needs)
        if idle and met and time.monotonic() >= service.retry_at:
            service.start()
        if service.became_ready() or (code == 0 and service.finished):
            seconds = round(time.monotonic() - service.started_at, 1)
            name = service.spec.name
            self.notify(Notice("up", f"  {name:<10} up in {seconds:4.1f} s", {"name": name, "seconds": seconds}))

    def _handle_exit(self, service: Service, code: int) -> None:
        delay = service.crashed()
        runs_once = service.spec.probe is None
        name, log = service.spec.name, service.spec.log
        refused = code == os.EX_CONFIG  # how our programs end then, with the reason as last line
        hopeless = refused or runs_once or service.crashes >= MAX_FIRST_CRASHES
        if hopeless and not service.ever_ready and service.spec.optional:
            service.given_up = True
            why = f": {service.log_tail(lines=1)}" if refused else f" (see {log})"
            message = f"  {name} {_end(code)}; the others go on without it{why}"
            self.notify(Notice("given_up", message, {"name": name, "exit_code": code}))
            return
        if refused and not service.ever_ready:
            raise RefusedError(service.log_tail(lines=1))
        if hopeless and not service.ever_ready:
            raise StartFailedError(service, code)
        message = f"  {name} {_end(code)}; trying again in {delay:.1f} s (see {log})"
        self.notify(Notice("restart", message, {"name": name, "exit_code": code, "seconds": delay}))

    def _stop_all(self, stop: StopSignals) -> None:
        running = [service for service in reversed(self.services.values()) if service.process is not None]
        if running:
            names = ", ".join(service.spec.name for service in running)
            self.notify(Notice("stopping", f"Stopping {names} (Ctrl-C again: at once)"))
        for service in running:
            service.stop(lambda: stop.haste)


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    ended = f"was ended by {signal.Signals(-code).name}"
    return f"{ended}, as the system does where memory runs out" if code == -signal.SIGKILL else ended
