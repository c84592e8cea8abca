"""Training files that were checked when they came in."""

import io
from collections.abc import Iterator

import osora_data
from osora_core.errors import DataError


def rows_of(data: bytes) -> Iterator[osora_data.Row]:
    """The rows of a training file, in canonical shape.

    Raises DataError at one that is wrong: it was not checked, or not where the same is installed as here.
    """
    for row in osora_data.read(io.BytesIO(data)):
        if isinstance(row, osora_data.Problem):
            subject = f"`{row.field}` " if row.field else ""
            raise DataError(subject + row.problem, line=row.line or 1, param=row.field, next_action=row.next_action)
        yield row
