"""Parquet, read a batch at a time. Its lines are its rows' numbers."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from osora_data.containers.base import Item
from osora_data.containers.cells import read_cells
from osora_data.containers.lines import MAX_LINE_BYTES
from osora_data.containers.streams import PIECE_BYTES
from osora_data.problems import BrokenFileError, Problem, RowError
from osora_data.words import quoted

_BATCH_BYTES = 8 * 1024 * 1024
_MOST_ROWS = 1024
_FEW_ROWS = 16
_VALUE_BYTES = 16
"""What a value counts beside its text."""


class Parquet:
    """`line` is the number of the latest row."""

    def __init__(self, source: IO[bytes], most: int | None) -> None:
        self._source = source
        self._most = most
        self._left = 0
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
                file = parquet.ParquetFile(source)
                _check_names(file.schema_arrow.names)
                self._check_size(file.metadata)
                yield from self._rows(_batches(source))
        except (pyarrow.ArrowException, OSError, MemoryError) as error:
            problem = f"is damaged: its Parquet data cannot be read further ({type(error).__name__})"
            raise BrokenFileError(problem, "write the file again") from error

    def _check_size(self, metadata: Any) -> None:
        """By what the file says of itself; what it comes to is counted when it is read."""
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
        size = max(values, sum(group.total_byte_size for group in groups))
        if self._most is not None and size > self._most:
            raise self._too_large()

    def _too_large(self) -> BrokenFileError:
        return BrokenFileError(f"is more than {self._most} bytes once it is decompressed", "split the file")

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

    def _rows(self, batches: Iterator[Any]) -> Iterator[Item]:
        total = 0
        for batch in batches:
            # A row at a time: a batch of Python's objects is many times larger.
            for index in range(batch.num_rows):
                self.line += 1
                self._left = MAX_LINE_BYTES
                yield self._row({name: batch.column(i)[index] for i, name in enumerate(batch.schema.names)})
                total += MAX_LINE_BYTES - self._left
                if self._most is not None and total > self._most:
                    raise self._too_large()

    def _row(self, scalars: dict[str, Any]) -> Item:
        row = {}
        for name, scalar in scalars.items():
            try:
                value = self._value(scalar)
            except UnicodeDecodeError:
                return Problem(self.line, name, None, "has a byte that is not UTF-8", "write texts as UTF-8")
            except RowError as error:
                return error.at(self.line)
            if value is not None:
                row[name] = value
        try:
            return self.line, read_cells(row)
        except RowError as error:
            return error.at(self.line)

    def _value(self, scalar: Any) -> Any:
        """As JSON has it. A few bytes of a file may stand for any number of texts, so that they are counted first.

        A column of objects has all keys of all of them, and null where an object has none: those are left out.
        """
        self._left -= _VALUE_BYTES
        if self._left < 0:
            raise RowError(f"is longer than {MAX_LINE_BYTES} bytes", "split the row")
        if not scalar.is_valid:
            return None
        is_map = type(scalar).__name__ == "MapScalar"  # a list of pairs, which has `items` as well
        if hasattr(scalar, "items") and not is_map:  # an object
            items = list(scalar.items())
            read = {key: self._value(item) for key, item in items}
            if len(read) < len(items):
                raise RowError("has an object with a key that comes twice", "keep one of the two")
            return {key: value for key, value in read.items() if value is not None}
        if hasattr(scalar, "values"):  # a list
            return [self._value(item) for item in scalar.values]
        try:
            value = scalar.as_py()
        except UnicodeDecodeError:
            raise
        except (ValueError, ArithmeticError, LookupError):
            return scalar.type  # a time that is too far away or too exact for Python, for instance: no text
        self._left -= len(value) if isinstance(value, str | bytes) else 0
        return value


def _check_names(names: list[str]) -> None:
    """Raises BrokenFileError where two columns have one name: one of the two would be lost."""
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise BrokenFileError(f"there are two columns of the name {quoted(twice)}", "rename one of the two")


def _batches(source: IO[bytes]) -> Iterator[Any]:
    import pyarrow
    from pyarrow import parquet

    metadata = parquet.ParquetFile(source).metadata
    given = 0
    try:
        file = parquet.ParquetFile(source, read_dictionary=_repeated(metadata))
        for batch in file.iter_batches(batch_size=_rows_at_once(metadata)):
            given += batch.num_rows
            yield batch
        return
    except pyarrow.ArrowNotImplementedError:
        pass  # a text within a list is stored once here, by itself there: all are unfolded then, of a few rows at once
    for batch in parquet.ParquetFile(source).iter_batches(batch_size=_FEW_ROWS):
        skipped = min(given, batch.num_rows)
        given -= skipped
        if skipped < batch.num_rows:
            yield batch.slice(skipped)


def _repeated(metadata: Any) -> list[str]:
    """The columns of texts in which each is stored once. They are left so: a thousand may be one in the file."""
    columns = (
        metadata.row_group(group).column(index)
        for group in range(metadata.num_row_groups)
        for index in range(metadata.num_columns)
    )
    return sorted(
        {
            column.path_in_schema
            for column in columns
            if column.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in encoding for encoding in column.encodings)
        }
    )


def _rows_at_once(metadata: Any) -> int:
    """By the largest group of rows, as far as its own figures can be believed."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / max(1, largest))))
