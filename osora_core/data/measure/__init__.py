"""A training file in the tokens of a base: how many, how many are trained, and which rows are too long for it."""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from transformers import PreTrainedTokenizerBase

from osora_core.data.conversation import conversations_of
from osora_core.data.examples import Example
from osora_core.data.measure.bounds import Bound
from osora_core.data.measure.showing import Traces, segments
from osora_core.data.measure.tally import Tally, histogram, kept
from osora_core.data.rendering import Renderer
from osora_core.errors import DataError
from osora_data import Problem, Row
from osora_data.measures import MOST_LINES, Measure

_UNLIMITED = 2**62
_SAMPLES = 3


@dataclass(frozen=True)
class Effort:
    """How much of a large file is counted: of the rows that surely fit, so many or so many bytes, drawn evenly; and
    for how long at most."""

    rows: int = 20_000
    bytes: int = 16 * 1024 * 1024
    seconds: float = 60.0

    def share(self, rows: int, bytes: int) -> float:
        """Of a file's rows, those that are to be drawn."""
        return min(1.0, self.rows / max(rows, 1), self.bytes / max(bytes, 1))


def measure(
    rows: Iterable[Row | Problem],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    *,
    count: int,
    bytes: int,
    seed: int = 0,
    effort: Effort = Effort(),
    named: int = MOST_LINES,
) -> Measure:
    """Measures the rows of a file that has `count` of them and so many bytes; problems are passed over.

    Rows are encoded as a job encodes them. Those that may be longer than `limit` tokens are all counted; of the others,
    in a large file, a sample that `seed` draws. The first `named` rows of each kind are named.
    """
    work = _Work(tokenizer, limit, effort.share(count, bytes), seed, named)
    until = time.monotonic() + effort.seconds
    complete = True
    for row in rows:
        if isinstance(row, Problem):
            continue
        if time.monotonic() > until:
            complete = False
            break
        work.take(row)
    return work.measure(count, complete)


class _Work:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, limit: int, share: float, seed: int, named: int) -> None:
        conversations = conversations_of(tokenizer)
        self._tokenizer = tokenizer
        self._limit = limit
        self._share = share
        self._named = named
        self._random = random.Random(seed)
        self._renderer = Renderer(tokenizer, _UNLIMITED)
        self._bound = Bound(tokenizer, conversations)
        self._traces = Traces(conversations)
        self._certain, self._drawn = Tally(limit), Tally(limit)
        self._over: list[dict[str, int]] = []
        self._rows_over = 0
        self._refused: list[dict[str, Any]] = []
        self._rows_refused = 0
        self._shown: list[tuple[int, tuple[Example, ...]]] = []

    def take(self, row: Row) -> None:
        bound = self._bound.of(row.value)
        tally = self._certain if bound is None or bound > self._limit else self._drawn
        tally.seen += 1
        if tally is self._drawn and self._random.random() >= self._share:
            return
        tally.counted += 1
        try:
            sequences = self._rendered(row)
        except DataError as error:
            self._rows_refused += 1
            if len(self._refused) < self._named:
                problem = error.message.removeprefix(f"line {row.line}: ")
                place = {"line": row.line, "row": row.number}
                self._refused.append({**place, "problem": problem, "next_action": error.next_action})
            return
        longest = tally.add(sequences)
        if longest > self._limit:
            self._rows_over += 1
            if len(self._over) < self._named:
                self._over.append({"line": row.line, "row": row.number, "tokens": longest})
        self._look(row, sequences)

    def _rendered(self, row: Row) -> tuple[Example, ...]:
        render = self._renderer.preference if row.format == "preference" else self._renderer.render
        return tuple(render(row.value, row.line).sequences)

    def _look(self, row: Row, sequences: tuple[Example, ...]) -> None:
        """For roles that are left out, and for rows to show: each that was counted is as likely as another."""
        asked = row.value.get("input", row.value)
        if "messages" in asked:
            self._traces.add(asked["messages"], asked.get("tools"), row.line)
        place = len(self._shown)
        if place == _SAMPLES:
            place = self._random.randrange(self._certain.all.rows + self._drawn.all.rows)
        if place < _SAMPLES:
            self._shown[place : place + 1] = [(row.line, sequences)]

    def measure(self, count: int, complete: bool) -> Measure:
        tallies = [self._certain, self._drawn]
        read = sum(tally.seen for tally in tallies)
        unread = count / read if read else 1.0
        everything = kept(tallies, "all", unread)
        return Measure(
            limit=self._limit,
            rows=count,
            counted=sum(tally.counted for tally in tallies),
            complete=complete,
            rows_over=self._rows_over,
            over=self._over,
            rows_refused=self._rows_refused,
            refused=self._refused,
            tokens=everything.tokens,
            trained_tokens=everything.trained_tokens,
            dropped=kept(tallies, "dropped", unread),
            truncated=kept(tallies, "truncated", unread),
            histogram=histogram(tallies, unread),
            samples=[self._sample(line, *sequences) for line, sequences in sorted(self._shown, key=itemgetter(0))],
            warnings=self._traces.warnings(),
        )

    def _sample(self, line: int, learned: Example, rejected: Example | None = None) -> dict[str, Any]:
        sample = {"line": line, "segments": segments(learned, self._tokenizer)}
        return sample if rejected is None else {**sample, "rejected": segments(rejected, self._tokenizer)}


__all__ = ["Effort", "Measure", "measure"]
