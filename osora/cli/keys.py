"""`osora key`."""

from typing import Annotated

import typer

from osora.cli.output import Json, print_json, print_table, say, when
from osora.sdk import Osora

app = typer.Typer(no_args_is_help=True, help="API keys (needs one with the scope admin, or operator).")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    tenant: Annotated[str | None, typer.Option(help="Whose; default: yours. Another's takes an operator.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write, admin (of the tenant) or operator (of all); repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown once."""
    with Osora() as osora:
        key = osora.keys.create(name, tenant=tenant, scopes=scope)
    if as_json:
        print_json(key)
    else:
        say(f"{key['key']}\nKeep it now: it is not shown again (id {key['id']}).")


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's. Another's takes an operator.")] = None,
    as_json: Json = False,
) -> None:
    """The keys of your tenant, or an operator's: of all, without their secrets."""
    with Osora() as osora:
        keys = osora.keys.list(tenant)
    if as_json:
        print_json(keys)
        return
    rows = [
        (
            k["id"],
            k["name"],
            k.get("tenant"),
            " ".join(k.get("scopes", [])),
            f"…{k['hint']}" if k.get("hint") else "",
            when(k.get("created_at")),
            when(k.get("revoked_at")),
        )
        for k in keys
    ]
    print_table(("id", "name", "tenant", "scopes", "ends in", "created", "revoked"), rows, "No keys.")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Make a key useless at once."""
    with Osora() as osora:
        osora.keys.revoke(key_id)
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        say(f"Revoked {key_id}.")
