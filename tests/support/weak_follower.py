"""`python -m tests.support.weak_follower`: a follower with less memory than its leader, or with a worse fate.

The environment says how little: WEAK_AVAILABLE bytes at the start; passes of up to WEAK_TOKENS tokens; WEAK_LEFT bytes
before a step. On a row with the token WEAK_POISON it fails.
"""

import os
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from osora_core.training import distributed
from osora_core.training.passes import Item, Passes
from worker.follower import main


def limit(name: str) -> float:
    return float(os.environ.get(f"WEAK_{name}", "inf"))


def main_of_the_weak() -> None:
    forward, require = Passes.forward, distributed._require

    def weak_forward(self: Passes, group: Sequence[Item], slots: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        if any(limit("POISON") in row.tokens for row, _ in group):
            raise ValueError("a test")
        if len(group) * max(len(row) for row, _ in group) > limit("TOKENS"):
            raise torch.OutOfMemoryError("a test")
        return forward(self, group, slots)

    def weak_require(size: int, device: Any) -> None:
        with patch.object(distributed, "available_bytes", lambda device: limit("LEFT")):
            require(size, device)

    vars(distributed)["available_bytes"] = lambda device: limit("AVAILABLE")
    vars(distributed)["_require"] = weak_require
    Passes.forward = weak_forward  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    main_of_the_weak()
