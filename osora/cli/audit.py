"""`osora audit`."""

from datetime import datetime
from typing import Annotated

import typer

from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, most, show_list
from osora.cli.output import Json, when
from osora.schemas import AuditRecord
from osora.sdk import Osora


def audit(
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's, by name or id. Another's takes an operator.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Such as key.created, or all of a kind: key.")] = None,
    target: Annotated[str | None, typer.Option(help="What it was done to: an id, or the name of an alias.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From this time on, in this machine's time zone.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this time.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    every: All = False,
    as_json: Json = False,
) -> None:
    """Who did what, to what, when and from where (needs a key with the scope admin, or operator)."""
    with Osora() as osora:
        records = fetch(
            osora.audit.list(most(limit, every), tenant=tenant, action=action, target=target, since=since, until=until)
        )
    columns = ("when", "action", "target", "by the key", "from", "tenant")
    show_list(records, as_json, columns, _row, "No records.", spare=("tenant", "from", "by the key"))


def _row(record: AuditRecord) -> tuple[object, ...]:
    return (
        when(record["created_at"]),
        record["action"],
        record["target"]["id"],
        record["actor"]["key_id"] or ("" if record["actor"]["tenant_id"] else "the service"),
        record["address"],
        record["tenant_id"],
    )
