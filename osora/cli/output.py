"""What the command line prints: tables for people, JSON for programs, errors for both; and its exit codes."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console

from osora.cli.flags import in_flags
from osora.errors import OpenAIError, OsoraAPIError, OsoraConnectionError, OsoraError, OsoraUsageError


class ExitCode(IntEnum):
    """What the exit status says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORISED = 4
    NOT_FOUND = 5
    INTERRUPTED = 130


_BY_STATUS = {401: ExitCode.UNAUTHORISED, 403: ExitCode.UNAUTHORISED, 404: ExitCode.NOT_FOUND}
EXIT_CODES = (
    "Exit codes: 0 done; 1 the job or the request failed; 2 wrong usage; 3 the service cannot be reached; "
    "4 not authorised; 5 not found; 130 interrupted."
)


def _remember_json(context: typer.Context, value: bool) -> bool:
    if value:
        context.find_root().obj = "json"  # for errors, which the outermost command prints
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON only.", callback=_remember_json)]


def console() -> Console:
    # Piped output has no width: 80 columns would cut ids that somebody is about to grep.
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    # Names have colons: ":x:" is a suffix, not a picture.
    return Console(width=wide, highlight=False, emoji=False)


def say(text: str) -> None:
    """A line for people. No markup: names and messages may contain brackets."""
    console().print(text, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """One line of a stream, visible to the reader at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or the sentence `empty` when there are no rows.

    A line is as long as its cells: folded over two lines, an id could not be copied.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not cells:
        say(empty)
        return
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    for line in (columns, *cells):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        say("  ".join(padded).rstrip())


def print_fields(fields: dict[str, object]) -> None:
    """One object: a line for each field that has a value."""
    for name, value in fields.items():
        if value is not None and value != "":
            say(f"{name:<14} {value}")


def sentences(message: str, next_step: str | None) -> str:
    """What happened, and what to do about it, each closed by a full stop."""
    return f"{message.rstrip('.')}." + (f" Next: {next_step.rstrip('.')}." if next_step else "")


def print_error(message: str, next_step: str | None, as_json: bool, *, code: str = "error", **fields: object) -> None:
    """One line on stderr (with --json: one JSON line), with what to do about it."""
    if as_json:
        error = {"message": message, "code": code, "next_action": next_step, **fields}
        print(json.dumps({"error": error}, ensure_ascii=False), file=sys.stderr)
        return
    print_note(f"Error: {sentences(message, next_step)}")


def print_note(text: str) -> None:
    """A line on stderr, beside what was asked for."""
    Console(stderr=True, highlight=False, emoji=False).print(text, markup=False, soft_wrap=True)


def report(error: OsoraError, as_json: bool) -> ExitCode:
    """Print an error of the SDK; returns the exit code that goes with it."""
    if isinstance(error, OsoraConnectionError):
        next_step = "start the service with `osora serve`, or set OSORA_URL to where it runs"
        if error.interrupted:
            next_step = "run it again; if that does not help, read the service's logs"
        print_error(str(error), next_step, as_json, code="unreachable")
        return ExitCode.UNREACHABLE
    if isinstance(error, OsoraUsageError):
        print_error(str(error), error.next_action, as_json, code="usage")
        return ExitCode.USAGE
    if isinstance(error, OpenAIError):
        print_error(str(error), error.next_action, as_json, code=error.code or "openai_error", status=error.status)
        return ExitCode.UNREACHABLE if error.status is None else _BY_STATUS.get(error.status, ExitCode.FAILED)
    if not isinstance(error, OsoraAPIError):
        print_error(str(error), None, as_json)
        return ExitCode.FAILED
    place = f" (line {error.line})" if error.line and f"line {error.line}" not in error.message.lower() else ""
    advice = in_flags(error.next_action) if error.next_action else None
    if error.status == 401 and error.code != "not_osora":  # the service's own advice is about HTTP headers
        advice = "set OSORA_API_KEY to a key of this service (`osora key create` makes one)"
    details = {
        "status": error.status,
        "param": error.param,
        "line": error.line,
        "request_id": error.request_id,
    }
    code = error.code or "error"
    message = in_flags(error.message, error.param)
    if place:
        message = f"{message.rstrip('.')}{place}"
    print_error(message, advice, as_json, code=code, **details)
    if code == "not_osora":
        return ExitCode.UNREACHABLE
    return _BY_STATUS.get(error.status, ExitCode.FAILED)


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
