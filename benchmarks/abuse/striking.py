"""The attacker's process, as the benchmark commands it."""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any


class Striker:
    """An attacker that waits for its word. `go()` and `stop()` may take turns; `answers` are those of all turns."""

    def __init__(self, name: str, url: str, key: str, base: str, *, at_once: int | None = None) -> None:
        self.answers: Counter[str] = Counter()
        command = [sys.executable, "-P", "-m", "benchmarks.abuse.strike", name, url, base]
        command += [] if at_once is None else [str(at_once)]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "ATTACKER_KEY": key, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Striker":
        self.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self) -> None:
        """Waits until it has what it needs."""
        self._hear("ready")

    def close(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.communicate()

    def go(self) -> None:
        """Strike, until `stop`."""
        self._say("go")
        self._hear("striking")

    def stop(self) -> None:
        """Leave all at once, in the middle of whatever goes on."""
        self._say("stop")
        self.answers.update(self._hear("stopped")["answers"])

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _hear(self, word: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the attacker could not prepare its attack, and says why above")
        said: dict[str, Any] = json.loads(line)
        assert said["event"] == word, said
        return said
