"""Whose turn a step is, where a row that is computed makes the others wait: on a CPU.

A row whose next mask is still being worked out joins a later step. And while several tenants decode, each has a few
rows in a step, those that have waited longest: whoever has thirty gets a token for some of them at a time.
"""

from collections import defaultdict
from collections.abc import Sequence

from osora_core.inference.live import LiveSequence

_ROWS_OF_TENANT = 8


class StepTurns:
    """Remembers who had the last turns."""

    def __init__(self) -> None:
        self._step = 0

    def left_out(self, rows: Sequence[LiveSequence]) -> set[LiveSequence]:
        """Those of the decoding rows that sit out the coming step; never all of them."""
        self._step += 1
        taking = defaultdict[str, list[LiveSequence]](list)
        for sequence in [row for row in rows if not row.sampler.is_late] or rows:
            taking[sequence.request.tenant].append(sequence)
        most = len(rows) if len(taking) == 1 else _ROWS_OF_TENANT
        turns = {row for own in taking.values() for row in sorted(own, key=lambda row: row.turn)[:most]}
        for row in turns:
            row.turn = self._step
        return set(rows) - turns
