"""CSV with a header, and what spreadsheets make of it: semicolons or tabs between cells, line ends in quotes."""

import csv
from collections.abc import Iterator
from io import BufferedReader

from osora_data.containers.base import Item
from osora_data.containers.cells import read_cells
from osora_data.containers.json_lines import BLANK
from osora_data.containers.lines import MAX_LINE_BYTES, Lines
from osora_data.notes import Notes
from osora_data.problems import BrokenFileError, Problem, RowError
from osora_data.strict_json import is_unicode
from osora_data.words import quoted

_AS_UTF8 = "save the file as UTF-8 (in Excel: CSV UTF-8)"


class CsvTable:
    """`line` is that on which the latest row begins."""

    def __init__(self, text: BufferedReader, delimiter: str, notes: Notes) -> None:
        self._lines = Lines(text)
        self._notes = notes
        csv.field_size_limit(MAX_LINE_BYTES)  # the process's own: nobody else here reads CSV of strangers
        self._reader = csv.reader(self._decoded(), delimiter=delimiter, strict=True)
        self.line = 1

    def __iter__(self) -> Iterator[Item]:
        header = self._header()
        blank: list[int] = []
        while True:
            self.line = self._reader.line_num + 1
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                yield self._explain(error)
                continue
            if cells is None:
                return
            if not cells:
                blank.append(self.line)
                continue
            for line in blank:
                self._notes.add(BLANK, line)
            blank.clear()
            yield self._row(header, cells)

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            yield line.decode("utf-8", "surrogateescape")

    def _header(self) -> list[str]:
        names = [name.strip() for name in next(self._reader, [])]
        for index, name in enumerate(names):
            if name and name in names[:index]:
                raise BrokenFileError(f"the header names the column {quoted(name)} twice", "rename one of the two")
        return names

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
        advice = 'put the cell into quotes, and write each quote in it twice: "says ""yes"""'
        if "field larger" in text or "unexpected end" in text:
            raise BrokenFileError("a quote opens in this row and does not close", advice) from error
        if "new-line character" in text:
            return Problem(self.line, None, None, "has a line end (CR) outside of quotes", advice)
        return Problem(self.line, None, None, f"is not CSV: {text}", advice)
