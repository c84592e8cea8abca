"""What the engine has to know of a job's rows, found out once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from osora_core.data import Row


@dataclass(frozen=True)
class RowFacts:
    """Worked out where a job is made, because to read every row on the engine's thread would hold up all other jobs.

    sequence_tokens: of the longest sequence that is trained on, which never goes through the model in less than one go
    (the two answers of a preference go apart); row_tokens and counted_tokens: of the longest row, and the most of a row
    that the loss counts. `longest` is the line and length of the longest sequence of all, validation rows included.
    `digest`: sha256 of all that is learned from and validated on.
    """

    sequence_tokens: int
    row_tokens: int
    counted_tokens: int
    longest: tuple[int, int]
    digest: str

    @classmethod
    def of(cls, train: Sequence[Row], valid: Sequence[Row]) -> "RowFacts":
        """`train` has at least one row."""
        digest = hashlib.sha256(b"%d" % len(train))
        for row in (*train, *valid):
            digest.update(row.content)
        trained, measured = (
            max(((len(sequence), row.line) for row in rows for sequence in row.sequences), default=(0, 0))
            for rows in (train, valid)
        )
        tokens, line = max(trained, measured)
        return cls(
            sequence_tokens=trained[0],
            row_tokens=max(map(len, train)),
            counted_tokens=max(row.loss_tokens for row in train),
            longest=(line, tokens),
            digest=digest.hexdigest(),
        )
