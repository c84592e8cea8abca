"""Keys that are nearly known ones: most likely those, with a slip of the finger."""

from collections.abc import Iterable
from functools import lru_cache


def nearest(key: str, known: frozenset[str], present: Iterable[str] = ()) -> str | None:
    """The known key that is most like this one, of those that are not there themselves; None where none is near."""
    cut = key[:40]
    if _nearest(cut, known) is None:
        return None
    return _nearest(cut, known.difference(present))


@lru_cache(maxsize=4096)
def _nearest(key: str, candidates: frozenset[str]) -> str | None:
    folded = key.strip().casefold().replace("-", "_").replace(" ", "_")
    found = [(distance, name) for name in candidates if (distance := _distance(folded, name)) <= _most(name)]
    return min(found)[1] if found else None


def _most(name: str) -> int:
    return 0 if len(name) < 4 else 1 if len(name) < 8 else 2


def _distance(one: str, other: str) -> int:
    """Letters to add, drop, replace or swap (optimal string alignment)."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if earlier and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
