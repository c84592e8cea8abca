"""Usage as a CSV file that a spreadsheet may open, whoever named what is in it."""

import csv
import io
from collections.abc import Iterator

from api.usage.schemas import UsageOut
from registry.usage import Row

_COLUMNS = [name for name in UsageOut.model_fields if name not in ("id", "object")]
# By what a cell begins with, a spreadsheet takes it for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_ROWS_A_PIECE = 500


def pieces(rows: Iterator[Row]) -> Iterator[str]:
    """The file, some rows at a time."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(_COLUMNS)
    for number, row in enumerate(rows, 1):
        said = UsageOut.of(row).model_dump()
        writer.writerow([_cell(said[name]) for name in _COLUMNS])
        if number % _ROWS_A_PIECE == 0:
            yield written.getvalue()
            written.seek(0)
            written.truncate()
    yield written.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
