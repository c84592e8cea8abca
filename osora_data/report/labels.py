"""Whether the answers are a few labels, and how evenly they are spread."""

from collections import Counter
from typing import Any

_MOST_LABELS, _MOST_CHARACTERS, _SHOWN = 50, 80, 40
_ROWS_OF_LABEL, _TIMES = 10, 10


class Labels:
    """Counts short answers as long as there are few of them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.may_be = True

    def add(self, answer: str) -> None:
        """A row's answer."""
        if len(answer) > _MOST_CHARACTERS:
            self.may_be = False
            return
        self._counts[answer] += 1
        if len(self._counts) > _MOST_LABELS:
            self.may_be = False

    def warning(self) -> dict[str, Any] | None:
        """If some label has many times the rows of another."""
        rows = self._counts.total()
        if not self.may_be or len(self._counts) < 2 or rows < _ROWS_OF_LABEL * len(self._counts):
            return None
        (most, count), *_, (least, few) = self._counts.most_common()
        if count < _TIMES * few:
            return None
        return {
            "code": "unbalanced_labels",
            "count": rows,
            "message": f"the answers are {len(self._counts)} labels, unevenly spread: {_cut(most)} has {count:,} of "
            f"{rows:,} rows, {_cut(least)} has {few:,}, so that a model may answer {_cut(most)} whatever it is asked",
            "next_action": "add rows of the rare labels, or leave out some of the frequent one's",
            "lines": [],
        }


def _cut(label: str) -> str:
    return repr(label if len(label) <= _SHOWN else label[: _SHOWN - 1] + "…")
