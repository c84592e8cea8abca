"""`python -m tests.faults.nursery`: forks worker processes that have their imports behind them.

A worker takes three seconds to import what it needs; the suite starts dozens. Each child is a process of its own from
there on, and runs `worker.__main__.main` as production does. Commands come as JSON lines on standard input, answers
(the child's pid) go to standard output; a child's exit status is written to a file when it has ended.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.faults.strikes import Orders, die_with, obey
from worker.__main__ import main as run_worker

_status_files: dict[int, Path] = {}


def main() -> None:
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    for line in sys.stdin:
        order = json.loads(line)
        # Until the child is known, its end must not be noticed.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_worker(order, parent)
        _status_files[pid] = Path(order["status"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)


def _become_worker(order: dict[str, Any], parent: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.setsid()
    die_with(parent)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target in (1, 2):
        os.dup2(log, target)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in [name for name in os.environ if name.startswith("OSORA_")]:
        del os.environ[name]
    os.environ.update(order["env"])
    status = 1
    try:
        obey(Orders.from_json(order["orders"]), Path(order["struck"]))
        run_worker()
    except SystemExit as exit:
        status = int(exit.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        path = _status_files.pop(pid)
        path.with_suffix(".tmp").write_text(str(os.waitstatus_to_exitcode(status)))
        path.with_suffix(".tmp").rename(path)


if __name__ == "__main__":
    main()
