"""A file in the tokens of a base: counted by a program of the server's, if that is installed."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from osora.errors import OsoraUsageError

_DEFAULT = "osora-tiny"
_INSTALL = 'pip install "osora[server]"'


class NotMeasuredError(OsoraUsageError):
    """A file's tokens cannot be counted here."""


def default_base() -> str:
    """The first base of OSORA_BASES, else the one that comes with the server."""
    return next((name for name, _ in _known_bases()), _DEFAULT)


def measure(
    path: Path, base: str, rows: int, *, seconds: float | None = None, named: int | None = None
) -> dict[str, Any]:
    """What `osora_data.measures.Measure` holds, of a file of so many rows; `base` is a name or a directory.

    `seconds` is how long it may take and `named` how many rows of each kind are named, where that is not the default.
    Raises NotMeasuredError, with what to do about it.
    """
    if find_spec("osora_core") is None or find_spec("transformers") is None:
        raise NotMeasuredError("tokens cannot be counted: that takes what only the server is installed with", _INSTALL)
    asked = {
        "base": dict(_known_bases()).get(base, base),
        "path": str(path.absolute()),
        "count": rows,
        "bytes": path.stat().st_size,
        **({} if seconds is None else {"seconds": seconds}),
        **({} if named is None else {"named": named}),
    }
    # -P: a folder named `transformers` where the user happens to stand is not meant.
    told = subprocess.run(
        [sys.executable, "-P", "-m", "osora_core.data.measure"],
        input=json.dumps(asked) + "\n",
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"},
    )
    try:
        answer: dict[str, Any] = json.loads(told.stdout)
    except ValueError:
        said = (told.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotMeasuredError(f"tokens cannot be counted: {said}", _INSTALL) from None
    if "error" in answer:
        raise NotMeasuredError(answer["error"]["message"], answer["error"]["next_action"])
    measured: dict[str, Any] = answer["measure"]
    return measured


def _known_bases() -> list[tuple[str, str]]:
    entries = (entry.strip().partition("=") for entry in os.environ.get("OSORA_BASES", "").split(","))
    return [(name.strip(), path.strip() or name.strip()) for name, _, path in entries if name.strip()]
