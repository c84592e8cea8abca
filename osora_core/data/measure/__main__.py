"""`python -m osora_core.data.measure`: measures files, each as a line of JSON on standard input asks for it.

A line is `{"base": a directory or a name, "path", "count", "bytes", "limit"?, "seconds"?, "named"?}`, and the answer a
line on standard output: `{"measure": {…}}` or `{"error": {"message", "next_action"}}`. It ends when its input does.
Whoever has other work on this machine keeps its share of the cores: this runs at the lowest priority.
"""

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from osora_core import base_models
from osora_core.data.measure import Effort, measure
from osora_core.errors import UserError
from osora_core.runtime import load_tokenizer, usable_length
from osora_data import read
from osora_data.measures import MOST_LINES

_LOWEST = 19


def main() -> None:
    """The command."""
    if hasattr(os, "nice"):
        os.nice(_LOWEST)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    answers = _standard_output()
    with suppress(BrokenPipeError):  # whoever asked has left
        for line in sys.stdin:
            answers.write(json.dumps(_answer(json.loads(line))) + "\n")
            answers.flush()


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"measure": _measured(**asked)}
    except UserError as error:
        return {"error": {"message": error.message, "next_action": error.next_action}}
    except Exception as error:  # what one file does must not keep others from being measured
        print(f"a file could not be measured: {type(error).__name__}", file=sys.stderr)
        said = f"the file could not be measured ({type(error).__name__})"
        return {"error": {"message": said, "next_action": "the job itself says more"}}


def _measured(
    base: str,
    path: str,
    count: int,
    bytes: int,
    limit: int | None = None,
    seconds: float | None = None,
    named: int = MOST_LINES,
) -> dict[str, Any]:
    tokenizer, longest = _base(base)
    # Whoever says how long it may take wants to know of every row.
    effort = Effort() if seconds is None else Effort(sys.maxsize, sys.maxsize, seconds)
    with Path(path).open("rb") as source:
        found = measure(read(source), tokenizer, limit or longest, count=count, bytes=bytes, effort=effort, named=named)
    return asdict(found)


@lru_cache(maxsize=64)
def _base(name: str) -> tuple[PreTrainedTokenizerBase, int]:
    """A base's tokenizer, and the tokens of the longest row that it is trained on."""
    source = base_models.resolve(name)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the base {name!r} cannot be read: {' '.join(str(error).split())[:200]}",
            param="base",
            next_action="name a base that `osora serve` can load",
        ) from error
    return load_tokenizer(source), usable_length(config)


def _standard_output() -> TextIO:
    """Standard output for answers alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


if __name__ == "__main__":
    main()
