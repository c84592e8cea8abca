"""One supervised program: its process, its log, whether it serves, and when it may be tried again."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from osora.serve.spawn import kill_group, spawn

MAX_BACKOFF_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""A program that ran this long before it ended counts as having crashed for the first time."""


@dataclass(frozen=True)
class Spec:
    """What to run and how to tell that it serves.

    `needs` names services that must serve before this one starts. `probe` says whether it serves; None means
    a program that runs once and has done its work when it exits with 0.
    """

    name: str
    command: Sequence[str]
    log: Path
    probe: Callable[[], bool] | None
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    stop_seconds: float = 5.0
    niceness: int = 0
    """How much it steps back when others want the processor."""
    optional: bool = False
    """Whether the others serve as well without it."""


class Service:
    """The running state of a `Spec`. All methods return at once, except `stop`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.ever_ready = False
        self.crashes = 0
        """Crashes in a row, each soon after the start."""
        self.retry_at = 0.0
        self.given_up = False
        """An optional one that does not come up."""
        self.started_at = 0.0
        self._log_begins = 0

    @property
    def finished(self) -> bool:
        """A program that runs once, and did."""
        return self.spec.probe is None and self.ready

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.ready = False
        with self.spec.log.open("ab") as log:
            self._log_begins = log.tell()
            self.process = spawn(
                self.spec.command,
                env=self.spec.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                niceness=self.spec.niceness,
            )

    def exit_code(self) -> int | None:
        """The exit code, once, if the process has ended since the last call."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        kill_group(self.process)  # what it may have started
        self.process = None
        if self.spec.probe is None and code == 0:
            self.ready = self.ever_ready = True
        return code

    def crashed(self) -> float:
        """Note a crash; returns the seconds until the next try."""
        now = time.monotonic()
        self.ready = False
        self.crashes = 1 if now - self.started_at > STABLE_SECONDS else self.crashes + 1
        delay = min(0.5 * 2.0 ** (self.crashes - 1), MAX_BACKOFF_SECONDS)
        self.retry_at = now + delay
        return delay

    def became_ready(self) -> bool:
        """Whether it serves now and did not at the last call."""
        if self.ready or self.process is None or self.spec.probe is None or not self.spec.probe():
            return False
        self.ready = self.ever_ready = True
        return True

    def stop(self, hurry: Callable[[], bool]) -> None:
        """SIGTERM, time to finish (unless `hurry` says no), then SIGKILL to the whole group."""
        process, self.process, self.ready = self.process, None, False
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.spec.stop_seconds
        while process.poll() is None and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        kill_group(process)
        process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it has written since its last start."""
        try:
            with self.spec.log.open("rb") as log:
                log.seek(max(self._log_begins, log.seek(0, 2) - 16384))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""
