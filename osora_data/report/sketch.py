"""A sample of a file's rows by their hashes, to compare it with other files without reading it again."""

import hashlib
import struct
import zlib
from array import array

MOST_ROWS = 1 << 16
_ALL = (1 << 32) - 1
_HEAD = struct.Struct("<IQ")


class Sketch:
    """Of each row 8 bytes of hash and its line, of all rows with a hash up to a bound. All rows of a file with no more
    than `MOST_ROWS`; the bound halves each time that there would be more, so files of any size have rows in common to
    be compared by.

    The hashes are of no secret: whoever has the row's text can tell that it is in the file.
    """

    def __init__(self) -> None:
        self._bound = _ALL
        self._hashes = array("Q")
        self._lines = array("Q")
        self.rows = 0

    def add(self, asked: bytes, said: bytes, line: int) -> None:
        """A row, by its prompt and its answer."""
        self.rows += 1
        drawn = zlib.crc32(said, zlib.crc32(asked))
        if drawn > self._bound:
            return
        digest = hashlib.blake2b(asked + b"\0" + said, digest_size=4).digest()
        self._hashes.append(drawn << 32 | int.from_bytes(digest, "little"))
        self._lines.append(line)
        if len(self._hashes) > MOST_ROWS:
            self._lower(self._bound >> 1)

    def to_bytes(self) -> bytes:
        """To be stored."""
        return _HEAD.pack(self._bound, self.rows) + self._hashes.tobytes() + self._lines.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Sketch":
        """From what `to_bytes` gave."""
        sketch = cls()
        sketch._bound, sketch.rows = _HEAD.unpack_from(data)
        middle = _HEAD.size + (len(data) - _HEAD.size) // 2
        sketch._hashes.frombytes(data[_HEAD.size : middle])
        sketch._lines.frombytes(data[middle:])
        return sketch

    def within(self, other: "Sketch") -> tuple[int, list[int], bool]:
        """How many of this file's rows are in the other, their lines as far as they are known, and whether the count
        is exact, not an estimate."""
        bound = min(self._bound, other._bound)
        theirs = {hash_ for hash_ in other._hashes if hash_ >> 32 <= bound}
        lines = [
            line
            for hash_, line in zip(self._hashes, self._lines, strict=True)
            if hash_ >> 32 <= bound and hash_ in theirs
        ]
        return round(len(lines) * (_ALL + 1) / (bound + 1)), lines, bound == _ALL

    def _lower(self, bound: int) -> None:
        self._bound = bound
        kept = [(hash_, line) for hash_, line in zip(self._hashes, self._lines, strict=True) if hash_ >> 32 <= bound]
        self._hashes = array("Q", [hash_ for hash_, _ in kept])
        self._lines = array("Q", [line for _, line in kept])
