"""Asking the person at the terminal."""

import sys
from typing import Annotated

import typer

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def is_asked() -> bool:
    """Whether a person sits before the terminal."""
    return sys.stdin.isatty()


def confirm(question: str, yes: bool, as_json: bool, *, always: bool = False) -> None:
    """Go on only with a yes: by --yes, or by asking.

    Where nobody can be asked, as in a script, what is `always` to be confirmed needs the --yes; the rest is done.

    Raises:
        typer.Abort: the answer was no.
        typer.BadParameter: nobody can be asked, and it must be.
    """
    if yes:
        return
    if not as_json and is_asked():
        typer.confirm(question, abort=True)
    elif always:
        raise typer.BadParameter("nobody can be asked here; say it with --yes", param_hint="--yes")
