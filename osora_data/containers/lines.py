"""Lines of a text file, counted. JSON Lines and CSV are read by them."""

from collections.abc import Iterator
from io import BufferedReader

from osora_data.problems import BrokenFileError

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Of a line, or of a row in a JSON array."""


class Lines:
    """Iterates over the lines with their ends; `number` is that of the latest, 1-based.

    A line ends with LF. A CR before it is white space; and whatever else ends a line elsewhere (a CR by itself, U+2028,
    U+0085, a form feed) is a character like any other, so that all who count lines count alike.
    """

    def __init__(self, text: BufferedReader) -> None:
        self._text = text
        self.number = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.number += 1  # so that what cannot be read is said of the line that it is on
            line = self._text.readline(MAX_LINE_BYTES + 2)
            if not line:
                self.number -= 1
                return
            if len(line) > MAX_LINE_BYTES and len(line.rstrip(b"\r\n")) > MAX_LINE_BYTES:
                raise BrokenFileError(f"is longer than {MAX_LINE_BYTES} bytes", "put each example on a line of its own")
            yield line
