"""What was accepted of a file although it is not as it should be, or converted: counted, with a few lines of each."""

from collections.abc import Sequence
from typing import Any

MOST_LINES = 5
MOST_NOTES = 200
"""Kinds of notes that are kept: keys are the file's own, and may be many."""

_OTHERS = "further keys are ignored"


class Notes:
    """Counts by message, in the order in which they first came up."""

    def __init__(self) -> None:
        self._lines: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}

    def add(self, message: str, line: int) -> None:
        """Notes it of one row or line."""
        count = self._counts.get(message)
        if count is None:
            if len(self._counts) >= MOST_NOTES:
                message = _OTHERS
            count = self._counts.setdefault(message, 0)
        lines = self._lines.setdefault(message, [])
        if len(lines) < MOST_LINES and line not in lines:
            lines.append(line)
        self._counts[message] += 1

    def add_lines(self, message: str, lines: Sequence[int], count: int) -> None:
        """Notes it of `count` lines, of which the first are `lines`."""
        for line in lines:
            self.add(message, line)
        if count > len(lines):
            self._counts[message] += count - len(lines)

    def to_list(self) -> list[dict[str, Any]]:
        """`{"message", "count", "lines"}` of each."""
        return [
            {"message": message, "count": count, "lines": list(self._lines[message])}
            for message, count in self._counts.items()
        ]
