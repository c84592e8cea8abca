"""Records on disk until somebody has taken them over: they outlive the process that wrote them.

A segment is a file of lines, each a checksum and a record as JSON; a record's number is that of its line. A process
only ever appends to segments of its own, so a number never stands for two records, whatever a crash leaves of a file.
What a dead process left is handed out by whoever starts next in the same folder: a segment belongs to whoever has it
locked.
"""

import fcntl
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

logger = logging.getLogger(__name__)

Record = dict[str, Any]

_SUFFIX = ".records"
_SEGMENT_BYTES = 1024 * 1024
# A disk that takes nothing is asked again after so long; meanwhile records wait in memory.
_AGAIN_SECONDS = 10.0
_SAY_SECONDS = 60.0


class Segment:
    """Records 1 to `count`, of which the first `taken` are no longer needed."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.id = path.name.removesuffix(_SUFFIX)
        self.count = 0
        self.taken = 0
        self.bytes = 0
        self.is_dirty = False
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path) -> "Segment":
        """A new one, which nobody can find before it is locked. Raises OSError."""
        path = folder / f"{uuid4().hex}{_SUFFIX}"
        unfinished = path.with_suffix(".new")
        segment = cls(path, os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600))
        fcntl.flock(segment._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unfinished.rename(path)
        return segment

    @classmethod
    def adopt(cls, path: Path) -> "Segment | None":
        """One that nobody owns any more; None if somebody does, or has just deleted it. Raises OSError."""
        try:
            segment = cls(path, os.open(path, os.O_RDWR))
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(segment._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            segment.close()
            return None
        if not os.fstat(segment._descriptor).st_nlink:  # between the two steps: all that it held has been fetched
            segment.close()
            return None
        lines = segment._lines()
        segment.count, segment.bytes = len(lines), os.fstat(segment._descriptor).st_size
        return segment

    @property
    def is_full(self) -> bool:
        """Whether another one comes next."""
        return self.bytes >= _SEGMENT_BYTES

    def append(self, record: Record) -> None:
        """Raises OSError, and is not to be appended to any more then."""
        said = json.dumps(record, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(said), said)
        written = os.write(self._descriptor, line)
        self.bytes += written
        if written < len(line):
            raise OSError("the disk is full")
        self.count += 1
        self.is_dirty = True

    def after(self, number: int, most: int) -> list[tuple[int, Record]]:
        """The records behind that number, with their own. A line that is damaged is left out, and said. Raises
        OSError."""
        records = []
        for place, line in enumerate(self._lines()[number : min(number + most, self.count)], number + 1):
            record = _read(line)
            if record is None:
                logger.error("usage: record %d of %s is damaged, and is lost", place, self.path)
            else:
                records.append((place, record))
        return records

    def sync(self) -> int | None:
        """A descriptor to be synchronised and closed, if there is something new."""
        if not self.is_dirty:
            return None
        self.is_dirty = False
        return os.dup(self._descriptor)

    def delete(self) -> None:
        """Raises OSError."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave it to whoever comes next."""
        os.close(self._descriptor)

    def _lines(self) -> list[bytes]:
        # What follows the last line's end was never finished.
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0).split(b"\n")[:-1]


def _read(line: bytes) -> Record | None:
    checksum, _, said = line.partition(b" ")
    try:
        record = json.loads(said) if int(checksum, 16) == zlib.crc32(said) else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class _InMemory:
    """A segment that no disk took."""

    def __init__(self) -> None:
        self.id = uuid4().hex
        self.taken = 0
        self.bytes = 0
        self._records: list[Record] = []

    @property
    def count(self) -> int:
        return len(self._records)

    @property
    def is_full(self) -> bool:
        return self.bytes >= _SEGMENT_BYTES

    def append(self, record: Record) -> None:
        self._records.append(record)
        self.bytes += len(json.dumps(record))

    def after(self, number: int, most: int) -> list[tuple[int, Record]]:
        return list(enumerate(self._records[number : number + most], number + 1))

    def sync(self) -> None:
        """There is nothing to be done."""

    def delete(self) -> None:
        self._records.clear()

    def close(self) -> None:
        if self.taken < self.count:
            logger.error("usage: %d records, which no disk took, end with this process", self.count - self.taken)


class Spool:
    """All segments of a folder that are ours. Not thread-safe; only what `unsynced` returns may go to a thread.

    `most_bytes`: what is more is lost, and said. While the disk takes nothing, records wait in memory, in segments that
    end with the process.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._segments: dict[str, Segment | _InMemory] = {}
        self._current: Segment | _InMemory | None = None
        self._try_again_at = 0.0
        self._said: dict[str, float] = {}
        self._lost = 0
        try:
            self._adopt()
        except OSError as error:
            self._say("adopt", f"records of usage cannot be kept in {folder}: {error}")

    def append(self, record: Record) -> None:
        """Keep a record. Never raises: what it is about goes on."""
        if sum(segment.bytes for segment in self._segments.values()) >= self._most_bytes:
            self._lost += 1
            self._say("full", f"{self._lost} records of usage are lost: nobody has fetched those in {self._folder}")
            return
        try:
            self._writable().append(record)
        except OSError as error:
            self._say(
                "write", f"records of usage are kept in memory only: {self._folder} cannot be written to: {error}"
            )
            self._try_again_at = time.monotonic() + _AGAIN_SECONDS
            self._current = _InMemory()
            self._segments[self._current.id] = self._current
            self._current.append(record)

    def take(self, most: int) -> tuple[str, list[tuple[int, Record]]] | None:
        """A segment's id and records of it that are still needed, with their numbers; None if there are none.

        They are handed out again until they are acknowledged.
        """
        for segment in list(self._segments.values()):
            if segment.taken == segment.count:
                continue
            try:
                records = segment.after(segment.taken, most)
            except OSError as error:
                self._say("read", f"records of usage cannot be read from {self._folder}: {error}")
                continue
            if records:
                return segment.id, records
            segment.taken = min(segment.taken + most, segment.count)
        return None

    def acknowledge(self, taken: Mapping[str, int]) -> list[str]:
        """Of each segment, records up to this number are no longer needed. The segments that are gone for good."""
        for id, number in taken.items():
            if (segment := self._segments.get(id)) is not None:
                segment.taken = min(max(segment.taken, number), segment.count)
        gone = []
        for segment in list(self._segments.values()):
            if segment.taken < segment.count or (segment is self._current and not segment.is_full):
                continue
            try:
                segment.delete()
            except OSError as error:
                self._say("delete", f"records of usage cannot be deleted from {self._folder}: {error}")
                continue
            if segment is self._current:
                self._current = None
            del self._segments[segment.id]
            gone.append(segment.id)
        return gone

    def unsynced(self) -> list[int]:
        """Descriptors of what is new, each to be synchronised with the disk and closed."""
        found = (segment.sync() for segment in self._segments.values())
        return [descriptor for descriptor in found if descriptor is not None]

    def close(self) -> None:
        """What is left is handed out by the next that uses the folder."""
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()

    def _adopt(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            segment = Segment.adopt(path)
            if segment is None:
                continue
            if segment.count:
                self._segments[segment.id] = segment
            else:
                segment.delete()

    def _writable(self) -> "Segment | _InMemory":
        current = self._current
        waits = isinstance(current, _InMemory) and time.monotonic() < self._try_again_at
        if current is None or current.is_full or (isinstance(current, _InMemory) and not waits):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            current = self._current = Segment.create(self._folder)
            self._segments[current.id] = current
        return current

    def _say(self, trouble: str, message: str) -> None:
        """Once a minute of each trouble."""
        now = time.monotonic()
        if now - self._said.get(trouble, -math.inf) >= _SAY_SECONDS:
            self._said[trouble] = now
            logger.error(message)
