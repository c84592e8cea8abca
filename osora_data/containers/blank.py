"""Lines without anything: fine at the end of a file, and noted elsewhere."""

from osora_data.notes import MOST_LINES, Notes
from osora_data.problems import BrokenFileError

MOST_BLANK = 1_000_000
"""Of a file. Packed, half a gigabyte of them is a small upload, and takes minutes to count."""

_BLANK = "an empty line among the rows, which was skipped"


class BlankLines:
    """Those since the last row. There may be millions: they are counted, and the first kept."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._first: list[int] = []
        self._count = self._all = 0

    def add(self, line: int) -> None:
        """Such a line. Raises BrokenFileError after too many."""
        self._count += 1
        self._all += 1
        if self._all > MOST_BLANK:
            raise BrokenFileError(f"is one of more than {MOST_BLANK:,} empty lines", "remove them")
        if len(self._first) < MOST_LINES:
            self._first.append(line)

    def before_row(self) -> None:
        """A row comes: they were not at the end."""
        if self._count:
            self._notes.add_lines(_BLANK, self._first, self._count)
            self._first, self._count = [], 0
