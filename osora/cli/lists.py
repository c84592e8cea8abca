"""Lists that come in pages: how many to show, and word of what is not shown."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from osora.cli.output import print_json, print_note, print_table
from osora.sdk.paging import Pages

Item = TypeVar("Item")
Limit = Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")]
All = Annotated[bool, typer.Option("--all", help="All there are.")]

DEFAULT_LIMIT = 20


class Listed(list[Item]):
    """The beginning of a list of the service's, and whether it goes on."""

    def __init__(self, items: Iterable[Item], has_more: bool = False) -> None:
        super().__init__(items)
        self.has_more = has_more


def fetch(pages: Pages[Item]) -> Listed[Item]:
    """All that the pages hold, up to their limit."""
    return Listed([*pages], pages.has_more)


def most(limit: int, every: bool) -> int | None:
    """How many to ask the service for: `limit`, or all."""
    return None if every else limit


def show_list(
    items: Listed[Any],
    as_json: bool,
    columns: Sequence[str],
    row: Callable[[Any], Sequence[object]],
    empty: str,
    *,
    spare: Sequence[str] = (),
    cropped: str | None = None,
) -> None:
    """A table of the items, or their JSON, and on stderr that there are more."""
    if as_json:
        print_json(items)
    else:
        print_table(columns, [row(item) for item in items], empty, spare=spare, cropped=cropped)
    tell_of_more(items, as_json)


def tell_of_more(items: Listed[Any], as_json: bool) -> None:
    """Says on stderr that a list has not ended, if it has not."""
    if items.has_more:
        print_note(f"These are the newest {len(items)}; there are more: --all, or a higher --limit.", as_json)
