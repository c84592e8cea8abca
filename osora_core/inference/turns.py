"""Whose turn a step is, where the processor that computes rows also works out what may follow in them: on a CPU.

A row whose next mask is still being worked out joins a later step. And where a row that sits a step out costs nothing,
each of several tenants that decode has a few rows in a step, those that have waited longest: whoever has thirty gets a
token for some of them at a time.
"""

from collections import defaultdict
from collections.abc import Sequence

from osora_core.inference.live import LiveSequence

_ROWS_OF_TENANT = 8


class StepTurns:
    """Remembers who had the last turns."""

    def __init__(self, *, shares: bool) -> None:
        """shares: whether a tenant's rows are counted."""
        self._shares = shares
        self._step = 1

    def left_out(self, rows: Sequence[LiveSequence], *, others: bool) -> set[LiveSequence]:
        """Those of the decoding rows that sit out the coming step: all of them only if it has `others` to compute."""
        self._step += 1
        taking = defaultdict[str, list[LiveSequence]](list)
        ready = [row for row in rows if not row.sampler.is_late]
        for sequence in ready or ([] if others else rows):
            taking[sequence.request.tenant].append(sequence)
        for sequence in rows:  # one that is new waits behind those that have waited
            sequence.turn = sequence.turn or self._step - 1
        most = _ROWS_OF_TENANT if self._shares and len(taking) > 1 else len(rows)
        turns = {row for own in taking.values() for row in sorted(own, key=lambda row: row.turn)[:most]}
        for row in turns:
            row.turn = self._step
        return set(rows) - turns
