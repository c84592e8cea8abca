"""What a training file comes to in the tokens of a base."""

from dataclasses import dataclass, field
from typing import Any

MOST_LINES = 100
"""Rows that are named of each kind; all are counted."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a job trains on once rows over the limit are dropped, or truncated: an epoch's rows and tokens.

    `rows_cut` of them lost a part of an answer. A truncated row that lost all of its answers is not among `rows`.
    """

    rows: int
    tokens: int
    trained_tokens: int
    rows_cut: int = 0


@dataclass(frozen=True, slots=True)
class Measure:
    """Counts are exact where every row was counted (`counted` is `rows`), else estimates from those that were.

    limit: tokens of the longest row that is trained on.
    complete: every row that may be over the limit was counted. Else there may be more than `rows_over`.
    over: `{"line", "row", "tokens"}` of the first rows over the limit; there are `rows_over`.
    refused: `{"line", "row", "problem", "next_action"}` of the first counted rows that this base cannot be trained on.
    tokens, trained_tokens: of all rows that are not refused, however long. Trained are those that the loss counts.
    histogram: `{"from", "to", "rows"}`, by tokens, both ends included.
    samples: `{"line", "segments": [{"text", "trained"}]}`, and `rejected` beside `segments` in a preference.
    warnings: as in a file's report.
    """

    limit: int
    rows: int
    counted: int
    complete: bool
    rows_over: int
    over: list[dict[str, int]]
    rows_refused: int
    refused: list[dict[str, Any]]
    tokens: int
    trained_tokens: int
    dropped: Kept
    truncated: Kept
    histogram: list[dict[str, int]]
    samples: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, value: dict[str, Any]) -> "Measure":
        """From what `dataclasses.asdict` gave."""
        kept = {name: Kept(**value[name]) for name in ("dropped", "truncated")}
        return cls(**{**value, **kept})
