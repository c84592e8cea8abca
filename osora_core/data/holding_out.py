"""Rows to validate on, where a job has no file of them."""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from osora_common.hyperparameters import held_out
from osora_core.data.examples import Row
from osora_core.errors import UserError

R = TypeVar("R", bound=Row)


def hold_out(rows: Sequence[R], share: float, seed: int, *, have_prompts: bool = True) -> tuple[list[R], list[R]]:
    """Rows to train on, and about `share` of all (at least one) to validate on, both in their order.

    Rows with one prompt stay together, or without prompts (where texts are learned from their beginning on) those that
    are the same: what is validated was never seen. Which are held out depends on seed, prompts and share alone.
    Where every prompt has more rows than the share allows, it is those of the one with the fewest.

    Raises UserError where all rows have one prompt.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[_group(row, have_prompts)].append(index)
    if len(groups) < 2:
        what = "has a single row" if len(rows) == 1 else "has one prompt, or one text, in all of its rows"
        raise UserError(
            f"the training file {what}, so that none can be held out for validation",
            param="osora.validation_share",
            next_action="name a validation file, or leave out osora.validation_share",
        )
    drawn = sorted(groups, key=lambda group: hashlib.sha256(b"%d " % seed + group).digest())
    wanted = held_out(len(rows), share)
    held: set[int] = set()
    for group in drawn:
        if len(held) + len(groups[group]) <= wanted:
            held.update(groups[group])
    if not held:
        held.update(groups[min(drawn, key=lambda group: len(groups[group]))])
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


def _group(row: Row, has_prompt: bool) -> bytes:
    return hashlib.sha256(array("q", row.prompt).tobytes() if has_prompt else row.content).digest()
