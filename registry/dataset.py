"""What a line of a training file is, and the check of a file as it streams by, a piece at a time."""

from dataclasses import dataclass

from registry.errors import InvalidFile
from registry.formats import Format, check_line

_MAX_LINE_BYTES = 16 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def split_lines(data: bytes) -> list[bytes]:
    """The lines of a training file, without their ends; after the last end, what is left (mostly nothing).

    JSON Lines has one line end, LF. A CR before it is JSON's white space; and whatever else ends a line elsewhere (a CR
    by itself, U+2028, U+0085, a form feed) is a character like any other, so that all who count lines count alike.
    """
    return data.split(b"\n")


@dataclass(frozen=True)
class DatasetSummary:
    """What a valid training file holds."""

    format: Format
    rows: int


class DatasetCheck:
    """Fed the bytes of a file in order, it raises `InvalidFile` at the first line that is not training data.

    Blank lines are fine at the end of the file only: elsewhere they are more likely lost data than layout.
    """

    def __init__(self) -> None:
        self._pending: list[bytes] = []  # pieces of the line that has not ended yet
        self._pending_bytes = 0
        self._line = 0
        self._rows = 0
        self._format: Format | None = None
        self._first_blank: int | None = None

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the file."""
        *complete, rest = split_lines(chunk)
        for piece in complete:
            self._add(piece)
            self._end_line()
        self._add(rest)

    def finish(self) -> DatasetSummary:
        """Says that the file has ended."""
        if self._pending_bytes:
            self._end_line()
        if self._format is None:
            raise InvalidFile("the file has no examples", next_action="put one JSON object on each line")
        return DatasetSummary(self._format, self._rows)

    def _add(self, piece: bytes) -> None:
        self._pending_bytes += len(piece)
        if self._pending_bytes > _MAX_LINE_BYTES:
            problem = f"is longer than {_MAX_LINE_BYTES} bytes"
            raise InvalidFile(problem, line=self._line + 1, next_action="put each example on a line of its own")
        self._pending.append(piece)

    def _end_line(self) -> None:
        raw = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        self._line += 1
        if self._line == 1 and raw.startswith(_BYTE_ORDER_MARK):
            problem = "begins with a byte order mark"
            raise InvalidFile(problem, line=1, next_action="save the file as UTF-8 without BOM")
        if not raw.strip():
            self._first_blank = self._first_blank or self._line
            return
        if self._first_blank is not None:
            raise InvalidFile("is empty", line=self._first_blank, next_action="remove the empty line")
        found = check_line(raw, self._line)
        if self._format is not None and found != self._format:
            problem = f"is in the {found} format, and the lines before in the {self._format} format"
            raise InvalidFile(problem, line=self._line, next_action="use one format in a file")
        self._format = found
        self._rows += 1
