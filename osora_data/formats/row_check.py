"""What the checks of all formats share: rejecting with a field, keys that are not known, and notes."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, NoReturn

from osora_data.formats.near import nearest
from osora_data.notes import Notes
from osora_data.problems import RowError
from osora_data.words import kind, quoted, short

MOST_UNKNOWN = 1000
"""Different keys of a file that are ignored."""

_SHOWN_KEY = 60
_LOOKED_AT = 20
_NOTHING = object()


class RowCheck:
    """Checks one row after another; `line` is the present row's."""

    def __init__(self, notes: Notes) -> None:
        self.line = 0
        self._notes = notes
        self._calls = 0
        self._unknown: set[str] = set()

    def begin(self, line: int) -> None:
        """The next row begins on this line."""
        self.line = line
        self._calls = 0

    def reject(self, field: str | None, problem: str, next_action: str, value: Any = _NOTHING) -> NoReturn:
        """Raises RowError."""
        shown = None if value is _NOTHING else quoted(value)
        raise RowError(problem, next_action, field=field, value=shown)

    def note(self, message: str) -> None:
        """Says that something of this row was converted or ignored."""
        self._notes.add(message, self.line)

    def call_id(self) -> str:
        """An id for a call that has none; the row has no other of that."""
        self._calls += 1
        return f"call_{self._calls}"

    def ignore_others(self, row: Mapping[str, Any], prefix: str, known: frozenset[str], of: str = "") -> None:
        """Keys beyond the known are ignored and noted. Rejects one that is nearly a known one that is not there."""
        for key, value in row.items():
            if key in known:
                continue
            self._bound(key, prefix)
            meant = nearest(key, known, row)
            if meant is not None:
                self.reject(
                    prefix + short(key), "is not known here", f"did you mean `{meant}`? rename or remove it", value
                )
            if value is not None:
                self.note(f"`{short(key)}`{of} is ignored")

    def _bound(self, key: str, prefix: str) -> None:
        """Each key that is new is compared with all that are known, which takes its time."""
        cut = key[:_SHOWN_KEY]
        if cut in self._unknown:
            return
        if len(self._unknown) >= MOST_UNKNOWN:
            problem = f"is not known here, as {MOST_UNKNOWN} other keys of the file are not"
            self.reject(prefix + short(key), problem, "put what varies into values: a format has a few keys")
        self._unknown.add(cut)

    def text(self, row: Mapping[str, Any], prefix: str, key: str, what: str) -> str:
        """The string that a row has under this key."""
        if key not in row:
            self._reject_missing(row, prefix, key, what)
        value = row[key]
        if not isinstance(value, str):
            self.reject(prefix + key, f"must be a string, not {kind(value)}", f"write {what} as a JSON string", value)
        return value

    def _reject_missing(self, row: Mapping[str, Any], prefix: str, key: str, what: str) -> NoReturn:
        slip = next((name for name in islice(row, _LOOKED_AT) if nearest(name, frozenset((key,)))), None)
        if slip is not None:
            self.reject(
                prefix + short(slip), "is not known here", f"did you mean `{key}`? rename or remove it", row[slip]
            )
        self.reject(prefix + key, "is missing", f"add {what}")
