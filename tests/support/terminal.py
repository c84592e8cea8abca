"""A command in a terminal of its own: what it writes is kept as a screen, as a person would see it."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

# So that Ctrl-C reaches the program. Not between fork and exec, where a process with threads may hang.
_OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>]|([\r\n\x08\x07\t])")


class Screen:
    """Lines of text as they stand, with those that have scrolled away. Knows what rich and readline send."""

    def __init__(self, columns: int) -> None:
        self.lines: list[list[str]] = [[]]
        self._columns = columns
        self._row = self._column = 0
        self._rest = ""

    @property
    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.lines)

    def feed(self, text: str) -> None:
        """Take what the program wrote."""
        text, self._rest = self._rest + text, ""
        cut = text.rfind("\x1b")
        if cut >= 0 and not _CONTROL.match(text, cut):
            text, self._rest = text[:cut], text[cut:]
        place = 0
        for found in _CONTROL.finditer(text):
            self._write(text[place : found.start()])
            place = found.end()
            if found[3]:
                self._move(found[3])
            elif found[2]:
                self._control(found[1], found[2])
        self._write(text[place:])

    def _write(self, text: str) -> None:
        for character in text:
            if self._column >= self._columns:
                self._move("\r")
                self._move("\n")
            line = self.lines[self._row]
            line.extend(" " * (self._column + 1 - len(line)))
            line[self._column] = character
            self._column += 1

    def _move(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row += 1
            while self._row >= len(self.lines):
                self.lines.append([])
        elif character == "\x08":
            self._column = max(self._column - 1, 0)
        elif character == "\t":
            self._column = (self._column // 8 + 1) * 8

    def _control(self, parameters: str, command: str) -> None:
        count = int(parameters) if parameters.isdigit() else 1
        if command == "A":
            self._row = max(self._row - count, 0)
        elif command == "B":
            self._row += count
        elif command == "C":
            self._column += count
        elif command == "D":
            self._column = max(self._column - count, 0)
        elif command == "K":
            line = self.lines[self._row]
            del line[0 if parameters == "2" else self._column :]
        elif command == "J":
            del self.lines[self._row][self._column :]
            del self.lines[self._row + 1 :]


class Terminal:
    """A program that runs in a terminal. `screen` is what is on it; `seen` all that was ever written to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", fd: int, columns: int) -> None:
        self.process = process
        self.screen = Screen(columns)
        self.seen = ""
        self._fd = fd
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, text: str) -> None:
        """Press these keys: a line ends with \\n, Ctrl-C is \\x03, Ctrl-D is \\x04."""
        os.write(self._fd, text.encode())

    def wait_for(self, expected: str | Callable[[], bool], seconds: float = 90.0) -> None:
        """Until this is on the screen (or is true). Raises AssertionError with what is there instead."""
        deadline = time.monotonic() + seconds
        is_so = expected if callable(expected) else lambda: expected in self.screen.text
        while not is_so():
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{expected!r} did not come; on the screen is:\n{self.screen.text}")

    def interrupt(self, expected: str) -> None:
        """Ctrl-C, until this is on the screen.

        Python's readline looks for signals when its wait for a key is interrupted: one that comes between a key's echo
        and that wait is seen with the next key only, so a person presses again.
        """
        deadline = time.monotonic() + 90
        while expected not in self.screen.text:
            if time.monotonic() > deadline:
                raise AssertionError(f"{expected!r} did not come; on the screen is:\n{self.screen.text}")
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                self.wait_for(expected, seconds=5)

    def end_input(self) -> None:
        """Ctrl-D, once the prompt is there."""
        self.wait_for_prompt()
        self.type("\x04")

    def wait_for_prompt(self) -> None:
        """Before it is there the terminal is in another mode, in which a key may be lost."""
        self.wait_for(lambda: self.screen.text.rstrip().endswith("\n>"))

    def finish(self, seconds: float = 90.0) -> int:
        """The exit code, once the program has ended."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 1))

    def _read(self, seconds: float) -> bool:
        """Take the next piece of output; False when there is none in time, or no more."""
        if seconds <= 0 or not select.select([self._fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        text = self._decoder.decode(data)
        self.seen += text
        self.screen.feed(text)
        return bool(data)


@contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str], *, columns: int = 80, rows: int = 24, cwd: str | None = None
) -> Iterator[Terminal]:
    """The command in a terminal of this size. It is killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    own = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _OWN_TERMINAL, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"TERM": "xterm-256color", **own},
            cwd=cwd,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            try:
                yield Terminal(process, ours, columns)
            finally:
                if process.poll() is None:
                    process.kill()
    finally:
        with contextlib.suppress(OSError):
            os.close(ours)
