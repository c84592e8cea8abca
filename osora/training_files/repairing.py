"""A training file written anew, row by row in the shape that everything is read as, without what cannot be used."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from osora.errors import OsoraUsageError
from osora.training_files.tokens import measure
from osora_data import Problem, Row, check

_SHOWN = 100
_HOURS = 6 * 3600.0
_ALL = 2**31


@dataclass
class Repaired:
    """What became of a file: `dropped` rows by why, the first of them by line, and notes of what was converted."""

    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, why: str, line: int | None, said: str) -> None:
        """Leaves out a row."""
        self.dropped[why] = self.dropped.get(why, 0) + 1
        if len(self.changes) < _SHOWN:
            self.changes.append({"line": line, "dropped": why, "message": said})


def repair(path: Path, output: Path, *, drop_duplicates: bool, overlong_of: str | None) -> Repaired:
    """Writes a copy of JSON Lines whose rows are all good: the same rows in the same order, less those that are not,
    with `drop_duplicates` less later copies of a row, and with `overlong_of` less those that this base finds too long
    or refuses.

    The copy is written whole or not at all, in place of what had its name. Raises OsoraUsageError if no row is left,
    NotMeasuredError if the base's tokens cannot be counted, and OSError.
    """
    repaired = Repaired()
    unfit = {} if overlong_of is None else _unfit(path, overlong_of)
    seen: set[bytes] = set()

    def keep(row: Row, written: BinaryIO) -> None:
        if row.number in unfit:
            repaired.drop("overlong", row.line, unfit[row.number])
            return
        content = json.dumps(row.value, ensure_ascii=False).encode()
        if drop_duplicates:
            digest = hashlib.blake2b(content, digest_size=16).digest()
            if digest in seen:
                repaired.drop("duplicate", row.line, "is the same as an earlier row")
                return
            seen.add(digest)
        written.write(content + b"\n")
        repaired.rows += 1

    _write_whole(output, lambda written: _copy(path, lambda row: keep(row, written), repaired))
    return repaired


def _copy(path: Path, keep: Callable[[Row], None], repaired: Repaired) -> None:
    with path.open("rb") as source:
        checked = check(source, on_row=keep)
    repaired.notes = checked.notes
    bad = [{"line": problem.line, "dropped": "problem", "message": _said(problem)} for problem in checked.problems]
    repaired.changes = sorted([*bad, *repaired.changes], key=lambda change: change["line"] or 0)[:_SHOWN]
    if checked.problem_count:
        repaired.dropped["problem"] = checked.problem_count
    if not repaired.rows:
        first = f": {checked.problems[0].message}" if checked.problems else ""
        raise OsoraUsageError(f"No row of {path} is left{first}", "mend the file by hand: nothing was written")


def _said(problem: Problem) -> str:
    return f"`{problem.field}` {problem.problem}" if problem.field else problem.problem


def _unfit(path: Path, base: str) -> dict[int, str]:
    """The rows that a base cannot be trained on, by their numbers."""
    with path.open("rb") as source:
        rows = check(source).rows
    measured = measure(path, base, rows, seconds=_HOURS, named=_ALL)
    if not measured["complete"]:
        raise OsoraUsageError(f"The tokens of {path} could not be counted in {_HOURS / 3600:.0f} h", "split the file")
    over = {row["row"]: f"has {row['tokens']} tokens, over {measured['limit']}" for row in measured["over"]}
    return {**over, **{row["row"]: row["problem"] for row in measured["refused"]}}


def _write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        # As any new file is, and not for this user alone.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
