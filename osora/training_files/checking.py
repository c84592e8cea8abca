"""What a service would say of a training file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from osora.training_files.tokens import NotMeasuredError, measure
from osora_data import check
from osora_data.report import Observer, overlap


def examine(path: Path, base: str, training: Path | None = None) -> dict[str, Any]:
    """The file's report as `GET /files/{id}/report` gives it, with its problems, and with `path` instead of an id.

    `training`: the file that this one is to validate; rows that both have are warned of. Raises OSError.
    """
    observer = Observer()
    with path.open("rb") as source:
        checked = check(source, on_row=observer)
    warnings = observer.warnings()
    if training is not None:
        shared = overlap(observer.sketch, _observed(training).sketch)
        warnings += [] if shared is None else [shared]
    return {
        "object": "file.report",
        "path": str(path),
        "container": checked.container,
        "format": checked.format,
        "rows": checked.rows,
        "bytes": path.stat().st_size,
        "problems": [asdict(problem) for problem in checked.problems],
        "problem_count": checked.problem_count,
        "notes": checked.notes,
        "warnings": warnings,
        "tokens": {base: _tokens(path, base, checked.rows)} if checked.rows else {},
    }


def _observed(path: Path) -> Observer:
    observer = Observer()
    with path.open("rb") as source:
        check(source, on_row=observer)
    return observer


def _tokens(path: Path, base: str, rows: int) -> dict[str, Any]:
    try:
        return measure(path, base, rows)
    except NotMeasuredError as error:
        return {"unavailable": str(error), "next_action": error.next_action}
