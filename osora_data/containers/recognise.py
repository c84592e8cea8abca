"""Which container a file is, by its first bytes: its name may say anything."""

import csv
import io
from collections.abc import Iterator
from io import BufferedReader
from typing import IO

from osora_data.containers.base import Container
from osora_data.containers.csv_table import CsvTable
from osora_data.containers.json_array import JsonArray
from osora_data.containers.json_lines import JsonLines
from osora_data.containers.parquet import Parquet
from osora_data.containers.streams import (
    PIECE_BYTES,
    bounded,
    buffered,
    from_utf16,
    gunzipped,
    pieces_of,
    unzstd,
)
from osora_data.formats.columns import COLUMNS
from osora_data.notes import Notes
from osora_data.problems import BrokenFileError
from osora_data.words import short

_PACKED = {b"\x1f\x8b": (".gz", gunzipped), b"\x28\xb5\x2f\xfd": (".zst", unzstd)}
_PARQUET = b"PAR1"
_SEEN = 64 * 1024
"""Bytes that are looked at; a header may be long."""

_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet (.xlsx)", "unpack it, or save the sheet as CSV UTF-8"),
    (b"BZh", "compressed with bzip2", "compress it with gzip or zstd instead"),
    (b"\xfd7zXZ\x00", "compressed with xz", "compress it with gzip or zstd instead"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, and upload the file in it"),
    (b"ARROW1", "an Arrow file", "write it as Parquet or JSON Lines"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet (.xls)", "save the sheet as CSV UTF-8"),
    (b"SQLite format 3\x00", "an SQLite database", "write its rows as JSON Lines"),
    (b"%PDF", "a PDF", 'write texts as rows: {"text": "…"}'),
    (b"\xff\xfe\x00\x00", "in UTF-32", "save the file as UTF-8"),
    (b"\x00\x00\xfe\xff", "in UTF-32", "save the file as UTF-8"),
)
_NAMED = 8
"""Columns of a foreign table that a refusal names."""
_UTF8_MARK = b"\xef\xbb\xbf"
_DELIMITERS = ",;\t|"
_PLAIN = 'plain text as rows: {"text": "…"}'
_WHAT_IS_READ = "write JSON Lines, a JSON array, CSV with a header, or Parquet"


def recognise(source: IO[bytes], most: int | None, notes: Notes) -> tuple[str, Container]:
    """The container's name, such as `csv.gz`, and the container. Raises BrokenFileError for what none is."""
    source.seek(0)
    head = source.read(8)
    source.seek(0)
    for magic, (suffix, unpack) in _PACKED.items():
        if head.startswith(magic):
            text = buffered(bounded(unpack(source), most))
            begins = text.peek(8)[:8]
            if any(begins.startswith(magic) for magic in _PACKED):
                raise BrokenFileError("is compressed twice", "compress it once")
            if begins.startswith(_PARQUET):
                return "parquet" + suffix, Parquet(text, most)
            name, container = _text(text, notes)
            return name + suffix, container
    if head.startswith(_PARQUET):
        return "parquet", Parquet(source, most)
    return _text(buffered(bounded(pieces_of(source), most)), notes)


def _text(stream: BufferedReader, notes: Notes) -> tuple[str, Container]:
    text = _as_utf8(stream, notes)
    begins = text.peek(_SEEN)[:_SEEN]
    start = begins.lstrip()
    for magic, name, next_action in _OTHERS:
        if begins.startswith(magic):
            raise BrokenFileError(f"is {name}, which is not read here", next_action)
    if start.startswith(b"["):
        return "json", JsonArray(text, notes)
    if not start.startswith(b"{") and (delimiter := _delimiter(begins)):
        return "csv", CsvTable(text, delimiter, notes)
    if not start or any(line.lstrip().startswith(b"{") for line in begins.split(b"\n")[:50]):
        return "jsonl", JsonLines(text, notes)
    if names := _foreign_header(begins):
        problem = f"looks like CSV, and its first line names no column that is known here ({', '.join(names)})"
        raise BrokenFileError(
            problem, f"name the columns as the keys of rows, such as `prompt` and `completion`; {_PLAIN}"
        )
    known = f"is none of the files that are read here, and begins with {begins[:40]!r}"
    raise BrokenFileError(known, f"{_WHAT_IS_READ}; {_PLAIN}")


def _as_utf8(stream: BufferedReader, notes: Notes) -> BufferedReader:
    begins = stream.peek(4)[:4]
    if begins.startswith(_UTF8_MARK):
        stream.read(len(_UTF8_MARK))
        notes.add("a byte order mark, which was ignored", 1)
        return stream
    marks = {b"\xff\xfe": "le", b"\xfe\xff": "be"}
    order = marks.get(begins[:2]) if begins not in (b"\xff\xfe\x00\x00",) else None
    if order is not None:
        stream.read(2)
    elif len(begins) == 4 and begins[0] and not begins[1] and begins[2] and not begins[3]:
        order = "le"
    elif len(begins) == 4 and not begins[0] and begins[1] and not begins[2] and begins[3]:
        order = "be"
    if order is None:
        return stream
    notes.add("UTF-16, which was read as such", 1)
    return buffered(from_utf16(_rest_of(stream), order))


def _rest_of(stream: BufferedReader) -> Iterator[bytes]:
    while piece := stream.read1(PIECE_BYTES):
        yield piece


def _foreign_header(begins: bytes) -> list[str]:
    """The cells of the first line, cut, if the second has as many; none where that is no table."""
    lines = begins.decode("utf-8", "replace").split("\n", 2)
    for delimiter in _DELIMITERS if len(lines) > 1 else "":
        try:
            first, second = (next(csv.reader([line], delimiter=delimiter), []) for line in lines[:2])
        except csv.Error:
            continue
        if len(first) > 1 and len(first) == len(second):
            return [short(name.strip()) for name in first[:_NAMED]]
    return []


def _delimiter(begins: bytes) -> str | None:
    """What separates the cells of a header that has a known column; None where the first line is no such header."""
    first = begins.split(b"\n", 1)[0].decode("utf-8", "replace")
    best, most = None, 0
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
        except csv.Error:
            continue
        found = sum(name.strip().casefold() in COLUMNS for name in names)
        if found > most:
            best, most = delimiter, found
    return best
