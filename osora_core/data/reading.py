"""A file's rows, rendered: those that are trained on, and what became of those that are too long."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import osora_data
from osora_common.hyperparameters import Overlong
from osora_core.data.examples import Row
from osora_core.data.overlong import RowsTooLongError, RowTooLongError

R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Rendered(Generic[R]):
    """A file's rows in their order. `dropped` and `truncated`: the lines of those that are left out, and of those whose
    end is."""

    rows: list[R] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    @property
    def truncated(self) -> list[int]:
        return [row.line for row in self.rows if row.is_cut]


def render_rows(
    file: Iterable[osora_data.Row], render: Callable[[osora_data.Row], R], overlong: Overlong = "refuse"
) -> Rendered[R]:
    """Every row of a file.

    `render` raises RowTooLongError for a row that is too long or, where it truncates, for one of which nothing to learn
    would be left: such rows are dropped. Raises RowTooLongError or RowsTooLongError, with all that are too long, where
    they are refused and where no other is left; DataError at the first row that cannot be used for another reason.
    """
    rows: list[R] = []
    over: list[tuple[int, int]] = []
    limits = (0, 0)
    for row in file:
        try:
            rows.append(render(row))
        except RowTooLongError as error:  # not kept: it holds on to all that is known of the row
            over.append((error.line, error.tokens))
            limits = error.limit, error.base_length
    if over and overlong == "refuse" and len(over) == 1:
        ((line, tokens),) = over
        raise RowTooLongError(tokens, line, *limits)
    if over and (overlong == "refuse" or not rows):
        raise RowsTooLongError(over, len(rows) + len(over), *limits, overlong)
    return Rendered(rows, [line for line, _ in over])
