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
