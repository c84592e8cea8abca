"""`python -m osora_core.base_making`: prepare one base, in a process of its own.

`python -m worker.base_making` does the same, with the basis from the object store, or for it.

It may take more memory than there is, and must stop neither what trains nor what serves. One line of JSON on the input
says what (`Order`); lines of JSON come out: `{"state", "progress", "seconds_left"}` again and again, and at the end
`{"facts": {…}}` or `{"error": {"message", "next_action"}}`. It ends when its input does.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from transformers.utils import logging as transformers_logging

from osora_common.priority import give_way
from osora_common.ranks import Rank
from osora_core import base_models
from osora_core.base_folders import BaseFolders
from osora_core.basis import BasisCache, RemoteBasis
from osora_core.errors import OsoraCoreError
from osora_core.out_of_memory import is_out_of_memory, refusing_to_run_out
from osora_core.runtime import Runtime, set_threads

_TELL_SECONDS = 0.5
# What libraries raise where a base's files say what they did not reckon with: it would happen again every time.
_OF_THE_BASE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_NEXT = "compare its files with the original's, then remove the base and add it again; the workers' logs say more"


@dataclass(frozen=True)
class Order:
    """The base to prepare. `only_files`: whether it is enough to have it here, without its basis."""

    name: str
    source: str
    content: str | None
    data_dir: str
    device: str
    rank: Rank | Literal["auto"]
    only_files: bool = False


class _Teller:
    """Writes lines, and not too many of them."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._state: str | None = None
        self._began = self._told = 0.0

    def __call__(self, state: str, part: float | None) -> None:
        now = time.monotonic()
        if state != self._state:
            self._state, self._began = state, now
        elif now - self._told < _TELL_SECONDS and part != 1.0:
            return
        self._told = now
        left = (now - self._began) * (1 - part) / part if part else None
        self.write({"state": state, "progress": part, "seconds_left": left})

    def write(self, line: Mapping[str, Any]) -> None:
        print(json.dumps(line), file=self._out, flush=True)


def prepare(order: Order, tell: _Teller, remote: RemoteBasis | None) -> dict[str, Any]:
    """What is known of the base once it can be trained and served here. Raises OsoraCoreError."""
    folders = BaseFolders(Path(order.data_dir))
    content = folders.make(order.source, order.content, tell)
    if order.only_files:
        return {"content": content}
    tell("checking", None)
    with folders.held(order.source, content):
        place = folders.place(order.source, content)
        base_models.look_up(place)
        with refusing_to_run_out(f"the base {order.name!r}"):
            runtime = Runtime.load(
                order.name,
                BasisCache(Path(order.data_dir) / "cache", remote),
                path=place,
                device=order.device,
                rank=order.rank,
                progress=lambda done, total: tell("basis", done / total),
            )
    return {
        "content": content,
        "family": runtime.model.config.model_type,
        "has_chat_template": runtime.tokenizer.chat_template is not None,
        "parameters": runtime.parameters,
        "bytes": runtime.bytes,
        "base_fingerprint": runtime.basis.base_fingerprint,
        "basis_fingerprint": runtime.basis.fingerprint,
    }


def main(remote: RemoteBasis | None = None) -> None:
    """The program; `remote` is where bases are shared."""
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    order = Order(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_input, daemon=True).start()
    give_way()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    set_threads()
    teller = _Teller(out)
    try:
        teller.write({"facts": prepare(order, teller, remote)})
    except OsoraCoreError as error:
        teller.write({"error": {"message": error.message, "next_action": error.next_action}})
    except OSError as error:
        teller.write({"error": {"message": f"{error.filename or order.source}: {error.strerror}", "next_action": None}})
    except _OF_THE_BASE as error:
        if is_out_of_memory(error):
            raise
        logging.getLogger(__name__).exception("base %s cannot be prepared", order.name)
        said = " ".join(str(error).split())[:200]
        message = f"the base {order.name!r} cannot be used: preparing it fails with {type(error).__name__}: {said}"
        teller.write({"error": {"message": message, "next_action": _NEXT}})


def _end_with_input() -> None:
    """Whoever started this process is gone, or does not want it any more."""
    while sys.stdin.readline():
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
