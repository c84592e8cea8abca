"""JSON Lines: a JSON object on each line."""

from collections.abc import Iterator
from io import BufferedReader

from osora_data.containers.base import Item
from osora_data.containers.blank import BlankLines
from osora_data.containers.lines import Lines
from osora_data.notes import Notes
from osora_data.problems import BrokenFileError, RowError
from osora_data.strict_json import parse

COMMA = "a comma behind the row, which was ignored"


class JsonLines:
    def __init__(self, text: BufferedReader, notes: Notes) -> None:
        self._lines = Lines(text)
        self._notes = notes

    @property
    def line(self) -> int:
        return self._lines.number

    def __iter__(self) -> Iterator[Item]:
        blank = BlankLines(self._notes)
        rows = 0
        for raw in self._lines:
            number = self._lines.number
            if raw.isspace():
                blank.add(number)
                continue
            blank.before_row()
            rows += 1
            try:
                yield number, parse(raw)
            except RowError as error:
                if raw.rstrip().endswith(b","):
                    yield self._without_comma(raw, number)
                    continue
                if rows == 1 and raw.strip() == b"{" and raw.endswith(b"\n"):
                    raise BrokenFileError(
                        "begins a row that goes over several lines",
                        "put each row on one line, or all rows into one JSON array: [{…}, {…}]",
                    ) from error
                yield error.at(number)

    def _without_comma(self, raw: bytes, number: int) -> Item:
        try:
            value = parse(raw.rstrip()[:-1])
        except RowError as error:
            return error.at(number)
        self._notes.add(COMMA, number)
        return number, value
