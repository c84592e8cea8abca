"""Sums over counted rows, and what they say of all rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from osora_core.data.examples import Example
from osora_data.measures import Kept

_SMALLEST = 16


@dataclass
class Sums:
    """Of one way to treat rows: how many are left, their tokens, and how many lost a part of an answer."""

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    cut: int = 0

    def add(self, sequences: Sequence[Example]) -> None:
        self.rows += 1
        self.tokens += sum(map(len, sequences))
        self.trained += sum(sequence.loss_tokens for sequence in sequences)


@dataclass
class Tally:
    """Rows of one kind, of which some were counted; with `seen` and `counted` they speak for all of it."""

    limit: int
    seen: int = 0
    counted: int = 0
    all: Sums = field(default_factory=Sums)
    dropped: Sums = field(default_factory=Sums)
    truncated: Sums = field(default_factory=Sums)
    lengths: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, sequences: Sequence[Example]) -> int:
        """A row's sequences, each of which the limit holds for. Returns the tokens of the longest."""
        longest = max(map(len, sequences))
        self.all.add(sequences)
        self.lengths[_bin(longest, self.limit)] += 1
        if longest <= self.limit:
            self.dropped.add(sequences)
            self.truncated.add(sequences)
            return longest
        left = [Example(one.tokens[: self.limit], one.mask[: self.limit], one.line) for one in sequences]
        pairs = list(zip(sequences, left, strict=True))
        self.truncated.cut += any(whole.loss_tokens > part.loss_tokens for whole, part in pairs)
        # Two answers of which the same is left prefer nothing.
        if all(part.loss_tokens for part in left) and len({part.tokens for part in left}) == len(left):
            self.truncated.add(left)
        return longest

    def weight(self, unread: float) -> float:
        """How many rows a counted one stands for; `unread`: all rows by those that were read."""
        return unread * self.seen / self.counted if self.counted else 0.0


def kept(tallies: Sequence[Tally], name: str, unread: float) -> Kept:
    """Sums over all kinds of rows."""

    sums: list[tuple[Sums, float]] = [(getattr(tally, name), tally.weight(unread)) for tally in tallies]
    return Kept(
        rows=round(sum(one.rows * weight for one, weight in sums)),
        tokens=round(sum(one.tokens * weight for one, weight in sums)),
        trained_tokens=round(sum(one.trained * weight for one, weight in sums)),
        rows_cut=round(sum(one.cut * weight for one, weight in sums)),
    )


def histogram(tallies: Sequence[Tally], unread: float) -> list[dict[str, int]]:
    """Rows by length, from the shortest to the longest that there are, without gaps."""
    rows: dict[tuple[int, int], float] = {}
    for tally in tallies:
        for key, count in tally.lengths.items():
            rows[key] = rows.get(key, 0.0) + count * tally.weight(unread)
    if not rows:
        return []
    limit, longest = tallies[0].limit, max(rows)[1]
    found, begin = [], min(rows)[0]
    while begin <= longest:
        begin, end = _bin(begin, limit)
        found.append({"from": begin, "to": end, "rows": round(rows.get((begin, end), 0.0))})
        begin = end + 1
    return found


def _bin(length: int, limit: int) -> tuple[int, int]:
    """The bin of a length: ends double, and one is the limit."""
    end = max(_SMALLEST, 1 << (length - 1).bit_length())
    begin = 1 if end == _SMALLEST else end // 2 + 1
    if begin <= limit < end:
        return (begin, limit) if length <= limit else (limit + 1, end)
    return begin, end
