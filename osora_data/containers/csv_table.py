"""CSV with a header, and what spreadsheets make of it: semicolons or tabs between cells, line ends in quotes."""

import csv
from collections.abc import Iterator
from io import BufferedReader

from osora_data.containers.base import Item
from osora_data.containers.blank import BlankLines
from osora_data.containers.cells import read_cells
from osora_data.containers.lines import MAX_LINE_BYTES, Lines
from osora_data.formats.columns import COLUMNS
from osora_data.notes import Notes
from osora_data.problems import BrokenFileError, Problem, RowError
from osora_data.strict_json import is_unicode
from osora_data.words import quoted

_MOST_COLUMNS = 1000
_UNCLOSED = "a quote opens in this row and does not close"
_QUOTES = 'put the cell into quotes, and write each quote in it twice: "says ""yes"""'
_AS_UTF8 = "save the file as UTF-8 (in Excel: CSV UTF-8)"


class CsvTable:
    """`line` is that on which the latest row begins."""

    def __init__(self, text: BufferedReader, delimiter: str, notes: Notes) -> None:
        self._lines = Lines(text)
        self._notes = notes
        csv.field_size_limit(MAX_LINE_BYTES)  # the process's own: nobody else here reads CSV of strangers
        self._reader = csv.reader(self._decoded(), delimiter=delimiter, strict=True)
        self._row_bytes = 0
        self.line = 1

    def __iter__(self) -> Iterator[Item]:
        header = self._header()
        blank = BlankLines(self._notes)
        while True:
            self.line = self._reader.line_num + 1
            self._row_bytes = 0
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                yield self._explain(error)
                continue
            if cells is None:
                return
            if not cells:
                blank.add(self.line)
                continue
            blank.before_row()
            yield self._row(header, cells)

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            self._row_bytes += len(line)
            if self._row_bytes > MAX_LINE_BYTES:
                raise BrokenFileError(_UNCLOSED, _QUOTES)
            yield line.decode("utf-8", "surrogateescape")

    def _header(self) -> list[str]:
        try:
            names = [self._column(name.strip()) for name in next(self._reader, [])]
        except csv.Error as error:
            raise BrokenFileError(f"the header is not CSV: {error}", _QUOTES) from error
        if len(names) > _MOST_COLUMNS:
            problem = f"the header has {len(names)} columns, and at most {_MOST_COLUMNS} are read"
            raise BrokenFileError(problem, "keep those that hold the rows' texts")
        seen: set[str] = set()
        for name in filter(None, names):
            if name in seen:
                raise BrokenFileError(f"the header names the column {quoted(name)} twice", "rename one of the two")
            seen.add(name)
        return names

    def _column(self, name: str) -> str:
        # Spreadsheets like capitals.
        known = name.casefold()
        if known == name or known not in COLUMNS:
            return name
        self._notes.add(f"the column {quoted(name)} is read as `{known}`", 1)
        return known

    def _row(self, header: list[str], cells: list[str]) -> Item:
        if len(cells) != len(header):
            problem = f"has {len(cells)} cells, and the header has {len(header)}"
            advice = 'put cells with separators, quotes or line ends in them into quotes: "…"'
            return Problem(self.line, None, None, problem, advice)
        for name, cell in zip(header, cells, strict=True):
            if not cell.isascii() and not is_unicode(cell):
                return Problem(self.line, name, quoted(cell), "has a byte that is not UTF-8", _AS_UTF8)
            if "\0" in cell:
                return Problem(
                    self.line, name, quoted(cell), "has a NUL byte", "remove it: it is no character of a text"
                )
        try:
            return self.line, read_cells(dict(zip(header, cells, strict=True)))
        except RowError as error:
            return error.at(self.line)

    def _explain(self, error: csv.Error) -> Problem:
        text = str(error)
        if "field larger" in text or "unexpected end" in text:
            raise BrokenFileError(_UNCLOSED, _QUOTES) from error
        if "new-line character" in text:
            return Problem(self.line, None, None, "has a line end (CR) outside of quotes", _QUOTES)
        return Problem(self.line, None, None, f"is not CSV: {text}", _QUOTES)
