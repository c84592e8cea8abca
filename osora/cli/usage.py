"""`osora usage`."""

import sys
from typing import Annotated

import typer

from osora.cli.lists import Listed, show_list
from osora.cli.output import Json, plain
from osora.errors import OsoraUsageError
from osora.schemas import UsageRow
from osora.sdk import Osora

_GROUPS = ("day", "tenant", "key", "model", "kind")
_COUNTS = {
    "requests": "requests",
    "prompt_tokens": "tokens in",
    "completion_tokens": "tokens out",
    "trained_tokens": "trained tokens",
    "steps": "steps",
    "compute_seconds": "compute s",
}


def usage(
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="The first day, in UTC (2026-11-27); default: 30 days in all.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="The last day; default: today.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Keep sums apart by day, tenant, key, model or kind; repeatable. Default: day."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's. Another's takes an operator.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a CSV table only.")] = False,
    as_json: Json = False,
) -> None:
    """What was used: tokens of generations, and what training took."""
    if as_csv and as_json:
        raise OsoraUsageError("--csv and --json cannot be had together", "leave out one of them")
    groups = by or ["day"]
    with Osora() as osora:
        if as_csv:
            table = osora.usage.csv(since=since, until=until, group_by=groups, tenant=tenant)
            # Somebody else may have named what a terminal is about to show.
            sys.stdout.write(plain(table.replace("\r\n", "\n")))
            return
        rows = Listed(osora.usage.list(since=since, until=until, group_by=groups, tenant=tenant))
    named = [group for group in _GROUPS if group in groups]
    columns = (*named, *_COUNTS.values())
    spare = ("steps", "trained tokens", "compute s", "requests")
    show_list(rows, as_json, columns, lambda row: _cells(row, named), "Nothing was used in these days.", spare=spare)


def _cells(row: UsageRow, groups: list[str]) -> tuple[object, ...]:
    names = {
        "day": row.get("day"),
        "tenant": row.get("tenant"),
        "key": row.get("key_name") or row.get("key_id"),
        "model": row.get("adapter_id") or row.get("base"),
        "kind": row.get("kind"),
    }
    return (*(names[group] for group in groups), *(row.get(name) for name in _COUNTS))
