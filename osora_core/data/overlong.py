"""Rows that are longer than a base, or a job, reads."""

from collections.abc import Sequence

from osora_common.hyperparameters import Overlong
from osora_core.errors import DataError, UserError

_NAMED = 10


class RowTooLongError(DataError):
    """A row has `tokens` tokens, which are more than the `limit`; `base_length` is what the base could read."""

    def __init__(self, tokens: int, line: int, limit: int, base_length: int) -> None:
        super().__init__(
            f"the row is {tokens} tokens long, the limit is {limit}",
            line=line,
            next_action=_next("shorten the row, split it or remove it", "refuse", limit, base_length),
        )
        self.tokens = tokens
        self.limit = limit
        self.base_length = base_length


class RowsTooLongError(DataError):
    """Several rows of a file are, by line and tokens, or all of its `read` rows are of no use; `line` is the first."""

    def __init__(
        self, over: Sequence[tuple[int, int]], read: int, limit: int, base_length: int, overlong: Overlong
    ) -> None:
        lengths = ", ".join(f"line {line} ({tokens:,})" for line, tokens in over[:_NAMED])
        lengths += f" and {len(over) - _NAMED:,} more" if len(over) > _NAMED else ""
        words = f"{len(over):,} of {read:,} rows are more than {limit:,} tokens long"
        if overlong == "drop":
            words += ", which leaves none to train on"
        if overlong == "truncate":
            words += f", and within {limit:,} none has anything to learn"
        UserError.__init__(
            self,
            f"{words}: {lengths}",
            next_action=_next("shorten or split these rows", overlong, limit, base_length),
        )
        self.line = over[0][0]


def listed(lines: Sequence[int]) -> str:
    """The first few of some lines, for people."""
    named = ", ".join(map(str, lines[:_NAMED]))
    return f"line{'s' * (len(lines) > 1)} {named}" + (", …" if len(lines) > _NAMED else "")


def _next(action: str, overlong: Overlong, limit: int, base_length: int) -> str:
    if overlong != "truncate":
        others = '"truncate" or "drop"' if overlong == "refuse" else '"truncate"'
        action += f", or set osora.overlong to {others}"
    if limit < base_length:
        action += f", or raise osora.max_length: this base reads up to {base_length} tokens"
    return action
