"""What is wrong with a training file, so that it can be mended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that makes a file unusable.

    `line` is 1-based, None where the file as a whole is at fault; `field` a path inside the row, such as
    `messages[1].content`; `value` the offending value as JSON, cut; `problem` says what is wrong with it, and
    `next_action` what to do.
    """

    line: int | None
    field: str | None
    value: str | None
    problem: str
    next_action: str

    @property
    def message(self) -> str:
        """All but the next step, in one sentence."""
        where = "" if self.line is None else f"line {self.line}: "
        return where + self.fault

    @property
    def fault(self) -> str:
        """The same without the line."""
        return f"`{self.field}` {self.problem}" if self.field else self.problem


class RowError(Exception):
    """A row cannot be used; the arguments are those of `Problem`, and `line` counts from the row's first, 0."""

    def __init__(
        self, problem: str, next_action: str, *, field: str | None = None, value: str | None = None, line: int = 0
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_action = next_action
        self.field = field
        self.value = value
        self.line = line

    def at(self, line: int) -> Problem:
        """As the problem of the row that begins on this line."""
        return Problem(line + self.line, self.field, self.value, self.problem, self.next_action)


class BrokenFileError(Exception):
    """A file cannot be read further."""

    def __init__(self, problem: str, next_action: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_action = next_action
