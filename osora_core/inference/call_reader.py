"""The text of an answer, as it comes, into what is said and what is called."""

import re
from dataclasses import dataclass

from osora_core.inference.calls import ToolUse
from osora_core.inference.text import Search
from osora_core.tools.format import ID, NAME, SLOT


@dataclass(frozen=True)
class Call:
    """A whole call: the name of a function, and the JSON text of its arguments."""

    name: str
    arguments: str


class CallReader:
    """Reads one answer. Text that may turn out to begin a call is held back, and a call comes when it is whole.

    The grammar sees to it that what begins like a call is one. Where an answer is cut off within its first call, that
    is text, so that nobody makes half a call. Behind a whole call it is left out: text comes before calls, however an
    answer is asked for.
    """

    def __init__(self, use: ToolUse) -> None:
        self._use = use
        format = use.format
        self._opening = use.marker or format.lead
        self._gap = format.gap or ""
        self._preamble = format.preamble
        before = dict.fromkeys((self._preamble, self._gap))
        self._searches = [*(Search(blank + self._opening) for blank in before), Search(self._opening)]
        self._heads = [_head(format.lead.lstrip() if use.marker else format.lead, format.mid)]
        if format.between is not None:
            self._heads.append(_head(format.between, format.mid))
        self._held = ""
        self._calling = False
        self._said = False
        self._raw = ""
        self._position = 0
        self._name = ""
        self._scan: _Scan | None = None
        self._found = False

    def push(self, piece: str) -> tuple[str, list[Call]]:
        """More of the answer: the text that is certain now, and the calls that are whole with it."""
        text = ""
        if not self._calling:
            text = self._use.text(self._open(piece))
        else:
            self._raw += piece
        return text, self._calls() if self._calling else []

    def flush(self) -> str:
        """What is left at the end: text that was held back, or a first call that is not whole."""
        if self._found:
            return ""
        return self._use.text(self._raw if self._calling else self._held)

    def _open(self, piece: str) -> str:
        """The text that is certain before a call begins, if one does."""
        self._held += piece
        if self._use.marker is None:
            return self._open_at_once()
        *_, begin = [search.push(piece) for search in self._searches]
        if begin is not None:
            begin += len(self._held) - len(piece)
            text, self._raw = self._held[:begin], self._held[begin:]
            self._calling = True
            return "" if not self._said and text == self._preamble else text.removesuffix(self._gap)
        return self._certain(len(self._held) - max(search.matched for search in self._searches))

    def _open_at_once(self) -> str:
        """The same, where only an answer that begins with a call is one."""
        begin = self._held.removeprefix(self._preamble)
        if not self._said and begin.startswith(self._opening):
            self._calling, self._raw = True, begin
            return ""
        possible = (self._opening, self._preamble + self._opening)
        undecided = not self._said and any(opening.startswith(self._held) for opening in possible)
        return "" if undecided else self._certain(len(self._held))

    def _certain(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self._said = self._said or bool(text)
        return text

    def _calls(self) -> list[Call]:
        """The calls that are whole now. `_raw` is what came since the last one."""
        calls: list[Call] = []
        while True:
            if self._scan is None:
                head = self._heads[-1 if self._found else 0].match(self._raw)
                if head is None or (self._found and len(self._heads) == 1):
                    return calls
                self._name, self._position, self._scan = head[1], head.end(), _Scan()
            end = self._scan.end(self._raw, self._position)
            if end is None:
                return calls
            calls.append(Call(self._name, self._use.text(self._raw[self._position : end])))
            self._raw, self._scan, self._found = self._raw[end:], None, True


class _Scan:
    """Finds the end of a JSON object that comes piece by piece; each character is looked at once."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._seen = 0

    def end(self, text: str, begin: int) -> int | None:
        """Where in the text the object that begins at `begin` has ended. None while it has not."""
        for at in range(begin + self._seen, len(text)):
            character = text[at]
            self._seen += 1
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return at + 1
        return None


def _head(before: str, mid: str) -> re.Pattern[str]:
    return re.compile(f"{_pattern(before)}({NAME}){_pattern(mid)}")


def _pattern(piece: str) -> str:
    return ID.join(map(re.escape, piece.split(SLOT)))
