"""Reads training files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from osora_data.problems import Problem
from osora_data.rows import Format, Row

MOST_PROBLEMS = 100
"""Problems that are kept; all are counted."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file holds, and everything that is wrong with it.

    `container` is such as `jsonl`, `csv.gz` or `parquet`; `format` is None where no row tells it. `notes` say what was
    accepted and ignored or converted: `{"message", "count", "lines"}`, the first few lines of each.
    """

    container: str
    format: Format | None
    rows: int
    problems: list[Problem]
    problem_count: int
    notes: list[dict[str, Any]] = field(default_factory=list)


def read(source: BinaryIO, *, max_bytes: int | None = None) -> Iterator[Row | Problem]:
    """The rows of a file in their order, and what is wrong with the others.

    `source` is seekable and read from its beginning; `max_bytes` bounds what it may decompress to.
    """
    raise NotImplementedError


def check(
    source: BinaryIO, *, on_row: Callable[[Row], object] = lambda _: None, max_bytes: int | None = None
) -> Checked:
    """Reads a file to its end, hands each good row to `on_row`, and says what is wrong with the others."""
    raise NotImplementedError
