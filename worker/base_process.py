"""A base prepared beside the worker: a process that says how far it is, and that can be ended at any time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from osora_core.base_making import Order
from osora_core.errors import OsoraCoreError

_COMMAND = (sys.executable, "-P", "-m", "worker.base_making")


class PreparationFailed(OsoraCoreError):
    """The base cannot be used as it is."""

    code = "base_unusable"


class PreparationCrashed(Exception):
    """The process ended without a word: killed, most likely, where memory ran out."""


class BaseProcess:
    """The process. `stop` ends it, from any thread."""

    def __init__(self, order: Order) -> None:
        # An interrupt at the terminal is for the worker, with which it ends.
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ, start_new_session=True
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asdict(order)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # told by its end

    def run(self, tell: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
        """What it has found out, at its end; `tell` is called with every line before that.

        Raises PreparationFailed for a base that cannot be used, PreparationCrashed where it ended by itself.
        """
        for line in self._lines():
            if "facts" in line:
                facts: dict[str, Any] = line["facts"]
                return facts
            if "error" in line:
                raise PreparationFailed(line["error"]["message"], next_action=line["error"]["next_action"])
            tell(line)
        raise PreparationCrashed(f"the process that prepared it ended with {self._process.wait()}")

    def stop(self) -> None:
        """End it now; what it has made so far is kept, and gone on with."""
        self._process.kill()

    def close(self) -> None:
        """Leave nothing of it behind."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)


@contextmanager
def preparing(order: Order) -> Iterator[BaseProcess]:
    """The process, which is gone at exit."""
    process = BaseProcess(order)
    try:
        yield process
    finally:
        process.close()
