"""Reads training files: from bytes to rows, and everything that is wrong with the others."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any

from osora_data.containers.base import Item
from osora_data.containers.recognise import recognise
from osora_data.formats.canonical import format_of
from osora_data.formats.examples import CHAT
from osora_data.formats.row_check import RowCheck
from osora_data.formats.shapes import Shape, refuse_foreign, refuse_unknown, shape_of
from osora_data.notes import Notes
from osora_data.problems import BrokenFileError, Problem, RowError
from osora_data.rows import Format, Row
from osora_data.words import kind

MOST_PROBLEMS = 100
"""Problems that are kept; more are counted."""

MOST_COUNTED = 100_000
"""Problems after which no more are looked for: such a file is not what it was taken for."""

MOST_ROWS = 5_000_000
"""Of a file: a row is an object in a worker's memory, and takes its time however little is in it."""

_LOOKED_AT_CLOCK = 16
"""Rows between two looks at the clock."""

_DECIDING = 20
"""Rows that decide which format a file is in."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file holds, and everything that is wrong with it.

    `container` is such as `jsonl`, `csv.gz` or `parquet`, and empty where it is none; `format` is None where no good
    row tells it. `notes` say what was accepted and ignored or converted: `{"message", "count", "lines"}`, the first few
    lines of each.
    """

    container: str
    format: Format | None
    rows: int
    problems: list[Problem]
    problem_count: int
    notes: list[dict[str, Any]] = field(default_factory=list)


def read(source: IO[bytes], *, max_bytes: int | None = None) -> Iterator[Row | Problem]:
    """The rows of a file in their order, and what is wrong with the others.

    `source` is seekable and read from its beginning; `max_bytes` bounds what it may decompress to.
    """
    return iter(_Reading(source, max_bytes))


def read_values(source: IO[bytes], *, max_bytes: int | None = None) -> Iterator[tuple[int, Any] | Problem]:
    """The rows of a file as they are written, each with its line, in whatever format: their values are not checked."""
    yield from _Reading(source, max_bytes).items()


def check(
    source: IO[bytes],
    *,
    on_row: Callable[[Row], object] = lambda _: None,
    max_bytes: int | None = None,
    seconds: float = math.inf,
) -> Checked:
    """Reads a file to its end, hands each good row to `on_row`, and says what is wrong with the others.

    A file that takes more than so many seconds of this thread's time is one with a problem: others of any size are read
    in a small part of them.
    """
    until = time.thread_time() + seconds
    reading = _Reading(source, max_bytes)
    problems: list[Problem] = []
    format_: Format | None = None
    rows = count = 0
    for number, found in enumerate(reading):
        if number % _LOOKED_AT_CLOCK == 0 and time.thread_time() > until:
            problem = f"is as far as {seconds:g} seconds of reading go: the rows have very many small values"
            next_action = "leave out columns and keys that are ignored, or split the file"
            problems[MOST_PROBLEMS - 1 :] = [Problem(found.line, None, None, problem, next_action)]
            count += 1
            break
        if isinstance(found, Row):
            rows += 1
            format_ = format_ or found.format
            on_row(found)
            continue
        count += 1
        if len(problems) < MOST_PROBLEMS:
            problems.append(found)
        if count == MOST_COUNTED:
            break
    return Checked(reading.container, format_, rows, problems, count, reading.notes.to_list())


class _Reading:
    """One reading of a file; `container` and `notes` are whole at its end."""

    def __init__(self, source: IO[bytes], most: int | None) -> None:
        self._source = source
        self._most = most
        self._shape: Shape | None = None
        self._format: Format | None = None
        self.container = ""
        self.notes = Notes()
        self._check = RowCheck(self.notes)

    def __iter__(self) -> Iterator[Row | Problem]:
        number = 0
        for item in self._decided(self.items()):
            if isinstance(item, Problem):
                yield item
                continue
            number += 1
            line, value = item
            if number > MOST_ROWS:
                yield Problem(line, None, None, f"begins a row beyond the first {MOST_ROWS:,}", "split the file")
                return
            try:
                yield self._row(number, line, value)
            except RowError as error:
                yield error.at(line)

    def items(self) -> Iterator[Item]:
        """What is in the container, as far as it can be read: one item at least."""
        try:
            self.container, container = recognise(self._source, self._most, self.notes)
        except BrokenFileError as error:
            yield Problem(None, None, None, f"the file {error.problem}", error.next_action)
            return
        is_empty = True
        try:
            for item in container:
                is_empty = False
                yield item
        except BrokenFileError as error:
            is_empty = False
            yield Problem(container.line or None, None, None, error.problem, error.next_action)
        if is_empty:
            yield Problem(None, None, None, "the file has no examples", "put one JSON object on each line")

    def _decided(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, once the first of them have decided on the format."""
        first: list[Item] = []
        shapes: Counter[Shape] = Counter()
        for item in items:
            first.append(item)
            if not isinstance(item, Problem) and isinstance(item[1], dict):
                shape = shape_of(item[1])
                if shape is not None:
                    shapes[shape] += 1
            if len(first) == _DECIDING:
                break
        if shapes:
            self._shape = shapes.most_common(1)[0][0]
        return chain(first, items)

    def _row(self, number: int, line: int, value: Any) -> Row:
        check = self._check
        check.begin(line)
        if type(value) is not dict:
            check.reject(None, f"must be a JSON object, not {kind(value)}", f"write each line as {CHAT}", value)
        shape = shape_of(value)
        if "messages" not in value:
            refuse_foreign(check, value)
        if shape is None:
            refuse_unknown(check, value)
        elif self._shape is None:
            self._shape = shape
        elif shape is not self._shape:
            problem = f"is in the format {shape.name}, and other rows of the file in the format {self._shape.name}"
            check.reject(None, problem, "use one format in a file")
        row = self._shape.read(check, value)
        format_ = format_of(row)
        if self._format is None:
            self._format = format_
        elif format_ != self._format:
            problem = f"is in the {format_} format, and the rows before in the {self._format} format"
            check.reject(None, problem, "use one format in a file")
        return Row(number, line, format_, row)
