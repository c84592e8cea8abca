"""What a valid training file is warned of, told while it is read once, in bounded memory."""

from collections.abc import Sequence
from typing import Any

from osora_data.report.labels import Labels
from osora_data.report.sketch import Sketch
from osora_data.report.table import Table
from osora_data.report.texts import BETWEEN, RULE, folded, texts_of
from osora_data.rows import Row

MOST_FOLDED = 1 << 25
"""Bytes of the first rows' texts, among which near duplicates are looked for: in all of a large file it would take as
long as reading it."""

_LINES = 5
_FEW_ROWS = 10


class _Finding:
    """Sightings of one kind: how many, and on which lines the first were."""

    def __init__(self) -> None:
        self.count = 0
        self.lines: list[int] = []
        self.like: list[int] = []

    def add(self, line: int, like: int = 0, weight: int = 1) -> None:
        self.count += weight
        if len(self.lines) < _LINES:
            self.lines.append(line)
            self.like.append(like)

    def warning(self, code: str, message: str, next_action: str, *, about: bool = False) -> list[dict[str, Any]]:
        """None or one. `{rows}` in the message is how many."""
        if not self.count:
            return []
        rows = f"{'about ' if about else ''}{self.count:,} row{'s' * (self.count != 1)}"
        told = message.replace("{rows}", rows)
        if self.like[0]:
            told += f" (line {self.lines[0]} after line {self.like[0]})"
        return [{"code": code, "count": self.count, "message": told, "next_action": next_action, "lines": self.lines}]


class Observer:
    """Call it with each row of a file, in their order; then ask for `warnings()`."""

    def __init__(self) -> None:
        self.rows = 0
        self.sketch = Sketch()
        """To be stored, and compared with that of another file."""
        self._seen = Table()
        self._folded = Table()
        self._folded_bytes = self._folded_rows = 0
        self._prompts = Table()
        self._labels = Labels()
        self._same, self._near, self._against = _Finding(), _Finding(), _Finding()
        self._blank, self._open = _Finding(), _Finding()

    def __call__(self, row: Row) -> None:
        """The next row. This is called for each row of large files: it does little, and in few calls."""
        self.rows += 1
        line = row.line
        prompt, answers = texts_of(row)
        for answer in answers:
            if not answer or answer.isspace():
                self._blank.add(line)
                break
        # Each text is encoded once, and read once for each of its hashes.
        asked = prompt.encode("utf-8", "surrogatepass")
        said = BETWEEN.join(answers).encode("utf-8", "surrogatepass")
        asked_hash = hash(asked)
        before = self._seen.first(hash((asked_hash, hash(said))), line, 0)
        if before is not None:
            self._same.add(line, before[0], self._seen.weight)
        elif self._folded_bytes < MOST_FOLDED:
            self._look_for_alike(prompt, asked, answers, said, line)
        self.sketch.add(asked, said, line)
        if row.format == "preference":
            # Two contradict each other if each prefers what the other does not.
            before = self._prompts.first(hash((asked_hash, frozenset(answers))), line, hash(answers[0]))
        elif row.format != "text":
            answer = answers[-1] if answers else ""
            before = self._prompts.first(asked_hash, line, hash(answer.strip()))
            self._look_at_answer(row, answer)
        else:
            return
        if before is not None and not before[1]:
            self._against.add(line, before[0], self._prompts.weight)

    def _look_for_alike(self, prompt: str, asked: bytes, answers: Sequence[str], said: bytes, line: int) -> None:
        self._folded_bytes += len(asked) + len(said)
        self._folded_rows = self.rows
        key = (folded(prompt, asked), folded(BETWEEN.join(answers), said))
        before = self._folded.first(hash(key), line, 0)
        if before is not None:
            self._near.add(line, before[0])

    def _look_at_answer(self, row: Row, answer: str) -> None:
        if row.format == "chat" and row.value["messages"][-1]["role"] != "assistant":
            self._open.add(row.line)
        if self._labels.may_be:
            self._labels.add(answer)

    def warnings(self) -> list[dict[str, Any]]:
        """`{"code", "count", "message", "next_action", "lines"}` of each, the first few lines of each kind."""
        found = []
        if 0 < self.rows < _FEW_ROWS:
            few = "one row" if self.rows == 1 else f"only {self.rows} rows"
            found += [
                {
                    "code": "few_rows",
                    "count": self.rows,
                    "message": f"the file has {few}, which a model learns by heart and little else",
                    "next_action": "give it some dozens of different examples, better hundreds",
                    "lines": [],
                }
            ]
        found += self._blank.warning(
            "blank_answer",
            "{rows} with an answer of nothing but white space, or none, from which a model learns to say nothing",
            "give these rows an answer, or remove them",
        )
        found += self._same.warning(
            "duplicate_rows",
            "{rows} the same as an earlier one, which so counts twice or more",
            "remove them (`osora files fix --drop-duplicates`), unless they are to weigh more",
            about=self._seen.is_sample,
        )
        among = f" of the first {self._folded_rows:,}" if self._folded_bytes >= MOST_FOLDED else ""
        found += self._near.warning(
            "near_duplicate_rows",
            f"{{rows}}{among} the same as an earlier one {RULE}",
            "remove them, unless they are meant",
        )
        found += self._against.warning(
            "contradicting_rows",
            "{rows} with the prompt of an earlier one and another answer: a model can only guess between them",
            "keep one answer for each prompt, unless several are right",
            about=self._prompts.is_sample,
        )
        found += self._open.warning(
            "no_answer_at_the_end",
            "{rows} ending with a message that is not the assistant's, from which nothing is learned",
            "add the assistant's answer, or remove what comes after the last one",
        )
        labels = self._labels.warning()
        return found if labels is None else [*found, labels]


def overlap(validation: Sketch, training: Sketch) -> dict[str, Any] | None:
    """The warning of validation rows that are trained on as well; None if there are none. Its lines are of the
    validation file."""
    count, lines, exact = validation.within(training)
    if not count:
        return None
    about = "" if exact else "about "
    return {
        "code": "validation_overlaps_training",
        "count": count,
        "message": f"{about}{count:,} of the {validation.rows:,} rows of the validation file are in the training file "
        f"too ({RULE}), so the validation loss is better than it would be on new rows",
        "next_action": "remove them from one of the two files",
        "lines": lines[:_LINES],
    }


__all__ = ["RULE", "Observer", "Sketch", "overlap"]
