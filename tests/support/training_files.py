"""Training files in all containers, and what the reader finds in them."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow
import zstandard
from pyarrow import parquet

from osora_data import Checked, Row, check

Values = Sequence[dict[str, Any]]


def json_lines(rows: Values) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def json_array(rows: Values) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def csv_table(rows: Values, delimiter: str = ",") -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")  # so that both are quoted
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return out.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parquet_table(rows: Values) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), out)
    return out.getvalue()


CONTAINERS: dict[str, Callable[[Values], bytes]] = {
    "jsonl": json_lines,
    "json": json_array,
    "csv": csv_table,
    "parquet": parquet_table,
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read_all(data: bytes, **options: Any) -> tuple[Checked, list[Row]]:
    """What the check says of a file, and its good rows."""
    rows: list[Row] = []
    return check(io.BytesIO(data), on_row=rows.append, **options), rows


def values(data: bytes) -> list[dict[str, Any]]:
    """The canonical rows of a file without problems."""
    checked, rows = read_all(data)
    assert checked.problems == []
    assert (checked.rows, checked.problem_count) == (len(rows), 0)
    return [row.value for row in rows]
