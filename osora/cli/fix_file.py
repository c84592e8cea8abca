"""`osora files fix`."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from osora.cli.check_file import BaseName, Source
from osora.cli.output import Json, print_json, say
from osora.training_files.repairing import Repaired, repair
from osora.training_files.tokens import default_base

_WORDS = {"problem": "with a problem", "duplicate": "the same as earlier ones", "overlong": "that do not fit the base"}


class Overlong(StrEnum):
    """What becomes of rows that are too long for a base."""

    KEEP = "keep"
    DROP = "drop"


def fix(
    path: Source,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where the copy goes.")],
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Leave out rows that are the same as an earlier one.")
    ] = False,
    overlong: Annotated[
        Overlong, typer.Option(help="`drop` leaves out rows that the base cannot be trained on, most often too long.")
    ] = Overlong.KEEP,
    base: BaseName = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what has that name.")] = False,
    as_json: Json = False,
) -> None:
    """Write a copy of a training file that can be trained on: JSON Lines, in one of our own formats, without the rows
    that have problems. What was changed is said.
    """
    if output.exists() and not force:
        raise typer.BadParameter(f"{output} exists already; name another, or add --force", param_hint="--output")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.absolute().parent}; make it first", param_hint="--output")
    if base is not None and overlong is Overlong.KEEP:
        raise typer.BadParameter("a base is only for --overlong drop", param_hint="--base")
    name = None if overlong is Overlong.KEEP else base or default_base()
    repaired = repair(path, output, drop_duplicates=drop_duplicates, overlong_of=name)
    if as_json:
        print_json({"path": str(output), **asdict(repaired)})
    else:
        _print(repaired, output)


def _print(repaired: Repaired, output: Path) -> None:
    for note in repaired.notes:
        say(f"{note['count']:,} x {note['message']}")
    for change in repaired.changes:
        where = "" if change["line"] is None else f"line {change['line']} "
        say(f"{where}left out: {change['message']}")
    left_out = sum(repaired.dropped.values())
    if (more := left_out - len(repaired.changes)) > 0:
        say(f"and {more:,} more")
    why = "; ".join(f"{count:,} {_WORDS[name]}" for name, count in repaired.dropped.items())
    say(f"{output}: {repaired.rows:,} rows written, {left_out:,} left out" + (f" ({why})" if why else ""))
