"""One JSON array of rows, read a row at a time."""

import re
from collections.abc import Iterator
from io import BufferedReader

from osora_data.containers.base import Item
from osora_data.containers.lines import MAX_LINE_BYTES
from osora_data.containers.streams import PIECE_BYTES
from osora_data.notes import Notes
from osora_data.problems import BrokenFileError, Problem, RowError
from osora_data.strict_json import DEEPEST, parse

COMMA = "a comma before the array's end, which was ignored"

_SPACE = b" \t\r\n"
# What can change the depth, strings as a whole. A string that does not end in what was read matches as its quote only.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}"]', re.DOTALL)
_SCALAR = re.compile(rb"[^\[\]{},\"\s]++")
_OPENING = re.compile(rb'\{\s*"[^"\\]+"\s*:')
"""Of a row, its first key."""


ROWS_COUNTED = "an array with its rows on one line, of which the numbers of rows are given as lines"


class JsonArray:
    """`line` is that on which the latest row begins; in an array whose first two rows share the first line, the
    number of the row: there the line would tell nothing."""

    def __init__(self, text: BufferedReader, notes: Notes) -> None:
        self._text = text
        self._notes = notes
        self._buffer = b""
        self._position = 0
        self._opening: re.Match[bytes] | None = None
        self._line = 1
        self._rows = 0
        self._counts_rows = False

    @property
    def line(self) -> int:
        return max(1, self._rows) if self._counts_rows else self._line

    def __iter__(self) -> Iterator[Item]:
        self._peek()
        self._skip(1)
        after_comma = False
        while (character := self._peek()) != b"]":
            if not character:
                raise BrokenFileError("the array ends in the middle, without `]`", "upload the whole file")
            if character == b",":
                # One before the first row or behind another comma: a row may be missing there.
                yield Problem(self.line, None, None, "there is a comma without a row before it", "remove that comma")
                self._skip(1)
                continue
            self._rows += 1
            if self._rows == 2 and self._line == 1:
                self._counts_rows = True
                self._notes.add(ROWS_COUNTED, 1)
            size, item = self._row()
            yield item
            self._skip(size)
            after_comma = self._peek() == b","
            if after_comma:
                self._skip(1)
            elif self._peek() not in (b"]", b""):
                line = self.line + self._counts_rows
                yield Problem(line, None, None, "a comma is missing before this row", "put a comma between rows")
        if after_comma:
            self._notes.add(COMMA, self.line)
        self._skip(1)
        if self._peek():
            raise BrokenFileError("there is more behind the end of the array", "put all rows into one array")

    def _row(self) -> tuple[int, Item]:
        """The bytes of the row at the position, and the row."""
        raw = self._guessed()
        if raw is not None:
            try:
                return len(raw), (self.line, parse(raw))
            except RowError:
                pass  # is it the row that is wrong, or the guess?
        end = self._find_end()
        raw = self._buffer[self._position : end]
        self._opening = self._opening or _OPENING.match(raw)
        if len(raw) > MAX_LINE_BYTES:
            return len(raw), Problem(self.line, None, None, f"is longer than {MAX_LINE_BYTES} bytes", "split the row")
        try:
            return len(raw), (self.line, parse(raw))
        except RowError as error:
            error.line = 0 if self._counts_rows else error.line
            return len(raw), error.at(self.line)

    def _guessed(self) -> bytes | None:
        """The row, if it and the next begin as the first did: most do, and then no brackets need be counted.

        Inside of a row nothing looks so, or what is cut off there is no JSON.
        """
        if self._opening is None or not self._buffer.startswith(self._opening.group(), self._position):
            return None  # whoever looked from every row for what comes rarely would read the same bytes again and again
        begins = self._buffer.find(self._opening.group(), self._position + 1)
        if begins < 0:
            return None
        raw = self._buffer[self._position : begins].rstrip(_SPACE)
        return raw[:-1].rstrip(_SPACE) if raw.endswith(b",") and len(raw) <= MAX_LINE_BYTES else None

    def _peek(self) -> bytes:
        """The next character that is no white space; nothing at the end."""
        while True:
            rest = self._buffer[self._position : self._position + 256]
            blank = len(rest) - len(rest.lstrip(_SPACE))
            self._skip(blank)
            if blank < len(rest):
                return rest[blank : blank + 1]
            if not rest and not self._more():
                return b""

    def _skip(self, count: int) -> None:
        end = self._position + count
        while end > len(self._buffer) and self._more():
            pass
        self._line += self._buffer.count(b"\n", self._position, end)
        self._position = end

    def _more(self) -> bool:
        """Reads on, in pieces that double: a long string is looked through anew with each."""
        kept = self._buffer[self._position :]
        if len(kept) > MAX_LINE_BYTES:
            raise BrokenFileError(f"a row is longer than {MAX_LINE_BYTES} bytes", "split it")
        piece = self._text.read(max(PIECE_BYTES, len(kept)))
        self._buffer, self._position = kept + piece, 0
        return bool(piece)

    def _find_end(self) -> int:
        """Where the value ends that begins at the position, an offset in the buffer."""
        if self._buffer[self._position] not in b'[{"':
            return self._find_end_of_scalar()
        depth, place = 0, 0  # relative to the position, which moves when more is read
        while True:
            for match in _TOKEN.finditer(self._buffer, self._position + place):
                token = match.group()
                if token == b'"':  # not whole yet
                    place = match.start() - self._position
                    break
                depth += (token in (b"[", b"{")) - (token in (b"]", b"}"))
                if depth == 0:
                    return match.end()
                if depth > DEEPEST:
                    raise BrokenFileError("is nested too deeply", "write plain strings and small numbers")
            else:
                place = len(self._buffer) - self._position
            if not self._more():
                raise BrokenFileError(
                    "the array ends in the middle of the row that begins here", "upload the whole file"
                )

    def _find_end_of_scalar(self) -> int:
        """A number for instance, or what is no JSON at all."""
        while True:
            match = _SCALAR.match(self._buffer, self._position)
            end = match.end() if match else self._position + 1
            if end < len(self._buffer) or not self._more():
                return end
