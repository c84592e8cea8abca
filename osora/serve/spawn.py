"""Starting a process that cannot outlive us."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

WRAPPER = Path(__file__).with_name("die_with_parent.py")


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    niceness: int = 0,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, so that a terminal's Ctrl-C reaches only us.

    `niceness` is how much it steps back when others want the processor, 0 to 19.
    The kernel sends it `death_signal` when the *thread* that calls this ends: call it from the main thread.
    """
    facts = (int(death_signal), os.getpid(), niceness)
    wrapped = [sys.executable, "-I", "-S", str(WRAPPER), *map(str, facts), *command]
    return subprocess.Popen(
        wrapped,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=dict(env),
        start_new_session=True,
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and whatever it started."""
    # macOS answers EPERM for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
