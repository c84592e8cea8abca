"""What the command line prints: tables for people, JSON for programs, and errors for both; and its exit codes."""

import codecs
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any, TextIO

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text


class ExitCode(IntEnum):
    """What the exit status says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORISED = 4
    NOT_FOUND = 5
    INTERRUPTED = 130


# The colour of a cell, in a terminal.
_COLOURS = {"succeeded": "green", "running": "cyan", "paused": "yellow", "failed": "red", "cancelled": "red"}
_LOOKALIKES = {"…": "...", "·": "-", "—": "-", "→": ">", "“": '"', "”": '"'}
# Control characters, and the marks that make a line read in another order than it is written.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_STEERED = "\N{REPLACEMENT CHARACTER}"
_LEAST_CELL = 12
"""Cells that a column is not cropped below."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 the job or the request failed; 2 wrong usage; 3 the service cannot be reached; "
    "4 not authorised; 5 not found; 130 interrupted."
)


def _remember_json(context: typer.Context, value: bool) -> bool:
    if value:
        context.find_root().obj = "json"  # for errors, which the outermost command prints
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON only.", callback=_remember_json)]


def is_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout.isatty()


def console() -> Console:
    # Piped output has no width: 80 columns would cut ids that somebody is about to grep.
    wide = None if is_terminal() or "COLUMNS" in os.environ else 200
    # Names have colons: ":x:" is a suffix, not a picture.
    return Console(width=wide, highlight=False, emoji=False)


def say(text: str) -> None:
    """A line for people. No markup: names and messages may contain brackets."""
    console().print(plain(text), markup=False, soft_wrap=True)


def plain(text: str) -> str:
    """The text for people, without what would steer their terminal: a model's answer or a file's name may hold it."""
    return _STEERING.sub(_STEERED, text) if is_terminal() else text


def print_json(value: Any) -> None:
    """One document."""
    print(_json(value, sys.stdout, indent=2))


def print_json_line(value: Any) -> None:
    """One line of a stream, visible to the reader at once."""
    print(_json(value, sys.stdout), flush=True)


def _json(value: Any, stream: TextIO, indent: int | None = None) -> str:
    # What an encoding has no character for would come out as `?`: there, JSON's own escapes keep it.
    text = json.dumps(value, indent=indent, ensure_ascii=not is_utf8(stream))
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_utf8(stream: TextIO) -> bool:
    """Whether all characters can be written there."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """What is written for a character that an encoding lacks: one that looks like it, or `?`."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_LOOKALIKES.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


LOOKALIKES = "osora-lookalikes"
"""An error handler for streams whose encoding is not Unicode."""
codecs.register_error(LOOKALIKES, _replaced)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    empty: str,
    *,
    spare: Sequence[str] = (),
    cropped: str | None = None,
) -> None:
    """A table, or the sentence `empty` when there are no rows.

    A line is as long as its cells: folded over two lines, an id could not be copied. In a terminal too narrow for that,
    the columns of `spare` are left out, the first one first, and where that is not enough, the cells of the column
    `cropped` end in "…"; a pipe gets all of them, whole.
    """
    cells = [["" if cell is None else " ".join(plain(str(cell)).splitlines()) for cell in row] for row in rows]
    if not cells:
        say(empty)
        return
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    shown = _fitting(columns, widths, spare)
    if cropped is not None:
        _crop(cells, widths, shown, columns.index(cropped))
    screen = console()
    for number, line in enumerate((columns, *cells)):
        text = Text(style="bold" if number == 0 else "")
        for place in shown:
            text.append(line[place], style=_COLOURS.get(line[place], ""))
            text.append(" " * (widths[place] - cell_len(line[place]) + 2))
        text.rstrip()
        screen.print(text, soft_wrap=True)


def _fitting(columns: Sequence[str], widths: Sequence[int], spare: Sequence[str]) -> list[int]:
    """The places of the columns to show."""
    shown = list(range(len(columns)))
    width = terminal_width()
    for name in spare:
        if width is None or _length(widths, shown) <= width:
            break
        shown.remove(columns.index(name))
    return shown


def _crop(cells: Sequence[list[str]], widths: list[int], shown: Sequence[int], place: int) -> None:
    """Shorten one column's cells by what the lines are too long by, but to no less than leaves something to read."""
    width = terminal_width()
    if width is None or place not in shown or _length(widths, shown) <= width:
        return
    too_long = _length(widths, shown) - width
    widths[place] = min(widths[place], max(_LEAST_CELL, widths[place] - too_long))
    for line in cells:
        if cell_len(line[place]) > widths[place]:
            line[place] = set_cell_size(line[place], widths[place] - 1).rstrip() + "…"


def _length(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[place] + 2 for place in shown) - 2


def terminal_width() -> int | None:
    """In characters; None where there is no terminal."""
    return shutil.get_terminal_size().columns if is_terminal() else None


def print_fields(fields: dict[str, object]) -> None:
    """One object: a line for each field that has a value."""
    told = {name: value for name, value in fields.items() if value is not None and value != "" and value != []}
    width = max([14, *map(len, told)])
    for name, value in told.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        say(f"{name:<{width}} {shown}")


def sentences(message: str, next_step: str | None) -> str:
    """What happened, and what to do about it, each closed by a full stop, or by its question mark."""
    return _closed(message) + (f" Next: {_closed(next_step)}" if next_step else "")


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith("?") else f"{sentence.rstrip('.')}."


def print_error(message: str, next_step: str | None, as_json: bool, *, code: str = "error", **fields: object) -> None:
    """One line on stderr (with --json: one JSON line), with what to do about it."""
    if as_json:
        error = {"message": message, "code": code, "next_action": next_step, **fields}
        print(_json({"error": error}, sys.stderr), file=sys.stderr)
        return
    print_note(f"Error: {sentences(message, next_step)}")


def print_note(text: str, as_json: bool = False) -> None:
    """A line on stderr, beside what was asked for."""
    if as_json:
        print(_json({"note": text}, sys.stderr), file=sys.stderr)
    else:
        screen = Console(stderr=True, highlight=False, emoji=False)
        # It may be a terminal where standard output is none.
        shown = _STEERING.sub(_STEERED, text) if sys.stderr.isatty() else text
        screen.print(shown, markup=False, soft_wrap=True)


def busy(what: str, as_json: bool) -> AbstractContextManager[object]:
    """Shows on the terminal that something goes on, and what."""
    screen = Console(stderr=True)
    return nullcontext() if as_json or not screen.is_terminal else screen.status(what)


def human_bytes(count: float | None) -> str:
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def when(timestamp: float | None) -> str:
    return datetime.fromtimestamp(timestamp).strftime("%Y-%m-%d %H:%M:%S") if timestamp else ""


def ago(timestamp: float | None) -> str:
    """`3 min ago` in a terminal; elsewhere the time itself."""
    if timestamp is None or not is_terminal():
        return when(timestamp)
    seconds = max(time.time() - timestamp, 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"
