"""`osora keys`."""

from typing import Annotated

import typer

from osora.cli.asking import Yes, confirm
from osora.cli.lists import show_list
from osora.cli.names import completing
from osora.cli.output import Json, ago, print_json, say
from osora.schemas import Key
from osora.sdk import Osora

app = typer.Typer(
    invoke_without_command=True,
    help="API keys (needs one with the scope admin, or operator). Without a command: all.",
)


@app.callback()
def default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_keys(as_json=as_json)


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
    columns = ("id", "name", "tenant", "scopes", "ends in", "created", "revoked")
    spare = ("ends in", "created", "revoked", "tenant")
    show_list(keys, as_json, columns, _row, "No keys. Next: osora keys create NAME", spare=spare)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", autocompletion=completing("key"))],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make a key useless at once."""
    confirm(f"Revoke {key_id}? Whoever uses it is shut out at once.", yes, as_json)
    with Osora() as osora:
        osora.keys.revoke(key_id)
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        say(f"Revoked {key_id}.")


def _row(key: Key) -> tuple[object, ...]:
    return (
        key["id"],
        key["name"],
        key.get("tenant"),
        " ".join(key.get("scopes", [])),
        f"…{key['hint']}" if key.get("hint") else "",
        ago(key.get("created_at")),
        ago(key.get("revoked_at")),
    )
