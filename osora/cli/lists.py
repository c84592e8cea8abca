"""Lists that come in pages: how many to show, and word of what is not shown."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from osora.cli.output import print_json, print_note, print_table
from osora.schemas import Page

Item = TypeVar("Item")
Limit = Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")]
All = Annotated[bool, typer.Option("--all", help="All there are.")]

DEFAULT_LIMIT = 20
# The most that the service gives at once.
_PAGE = 100


def fetch(page: Callable[[int, str | None], Page[Item]], limit: int, every: bool, key: str = "id") -> Page[Item]:
    """The first `limit` items, or all. `page(limit, after)` gives one page; `key` names the field that it goes by."""
    found: list[Item] = []
    while True:
        got = page(_PAGE if every else min(limit - len(found), _PAGE), _of(found[-1], key) if found else None)
        found += got
        if not got or not got.has_more or (not every and len(found) >= limit):
            return Page(found, got.has_more)


def show_list(
    items: Page[Any],
    as_json: bool,
    columns: Sequence[str],
    row: Callable[[Any], Sequence[object]],
    empty: str,
    *,
    spare: Sequence[str] = (),
) -> None:
    """A table of the items, or their JSON, and on stderr that there are more."""
    if as_json:
        print_json(items)
    else:
        print_table(columns, [row(item) for item in items], empty, spare=spare)
    tell_of_more(items, as_json)


def tell_of_more(items: Page[Any], as_json: bool) -> None:
    """Says on stderr that a list has not ended, if it has not."""
    if items.has_more:
        print_note(f"These are the newest {len(items)}; there are more: --all, or a higher --limit.", as_json)


def _of(item: Any, key: str) -> str:
    return str(item[key])
