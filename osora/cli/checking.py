"""Reading a training file before it is sent, so that one that would be refused stays here."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from osora.errors import OsoraAPIError
from osora_data import Problem, check


def refuse_bad_rows(path: Path) -> None:
    """Raises what the service would answer to the file's bad rows.

    What is wrong with the file as a whole is left to the service: what reads it may be missing here only.
    """
    with path.open("rb") as stream:
        checked = check(stream)
    rows = [problem for problem in checked.problems if problem.line is not None]
    if rows:
        raise _refusal(rows, checked.problem_count)


def _refusal(problems: list[Problem], count: int) -> OsoraAPIError:
    first = problems[0]
    return OsoraAPIError(
        400,
        first.message + (f" ({count - 1:,} more in the file)" if count > 1 else ""),
        code="invalid_file",
        param="file",
        line=first.line,
        field=first.field,
        problems=[cast(Any, asdict(problem)) for problem in problems],
        problem_count=count,
        next_action=first.next_action,
    )
