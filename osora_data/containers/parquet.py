"""Parquet, read a batch at a time. Its lines are its rows' numbers."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from osora_data.containers.base import Item
from osora_data.containers.cells import read_cells
from osora_data.containers.streams import PIECE_BYTES
from osora_data.problems import BrokenFileError, Problem, RowError

_BATCH_BYTES = 8 * 1024 * 1024
_MOST_ROWS = 1024


class Parquet:
    """`line` is the number of the latest row."""

    def __init__(self, source: IO[bytes], most: int | None) -> None:
        self._source = source
        self._most = most
        self.line = 0

    def __iter__(self) -> Iterator[Item]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise BrokenFileError(
                "is a Parquet file, and what reads it is not installed here",
                "install the extra osora[parquet] where the file is read, or write it as JSON Lines",
            ) from error
        try:
            with self._seekable() as source:
                yield from self._rows(parquet.ParquetFile(source))
        except (pyarrow.ArrowException, OSError) as error:
            problem = f"is damaged: its Parquet data cannot be read further ({type(error).__name__})"
            raise BrokenFileError(problem, "write the file again") from error

    @contextmanager
    def _seekable(self) -> Iterator[IO[bytes]]:
        """The file itself or, of a stream, a copy of it: Parquet is read from its end."""
        if self._source.seekable():
            yield self._source
            return
        with tempfile.TemporaryFile(prefix="osora-parquet-") as spool:
            shutil.copyfileobj(self._source, spool, PIECE_BYTES)
            spool.seek(0)
            yield spool

    def _rows(self, file: Any) -> Iterator[Item]:
        total = 0
        for batch in file.iter_batches(batch_size=_rows_at_once(file.metadata)):
            total += batch.nbytes
            if self._most is not None and total > self._most:
                raise BrokenFileError(f"is more than {self._most} bytes once it is decompressed", "split the file")
            # A row at a time: a batch of Python's objects is many times larger.
            for index in range(batch.num_rows):
                self.line += 1
                yield self._row({name: batch.column(i)[index] for i, name in enumerate(batch.schema.names)})

    def _row(self, scalars: dict[str, Any]) -> Item:
        row = {}
        for name, scalar in scalars.items():
            try:
                value = _without_nulls(scalar.as_py())
            except UnicodeDecodeError:
                return Problem(self.line, name, None, "has a byte that is not UTF-8", "write texts as UTF-8")
            if value is not None:
                row[name] = value
        try:
            return self.line, read_cells(row)
        except RowError as error:
            return error.at(self.line)


def _rows_at_once(metadata: Any) -> int:
    """By the largest group of rows, as far as its own figures can be believed."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / max(1, largest))))


def _without_nulls(value: Any) -> Any:
    """A column of objects has all keys of all of them, and null where an object has none."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
