"""`osora key`."""

import re
from typing import Annotated

import typer

from osora.cli.asking import Yes, confirm
from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, most, show_list
from osora.cli.names import completing
from osora.cli.output import Json, ago, print_json, print_note, say, when
from osora.schemas import Key
from osora.sdk import Osora

app = typer.Typer(
    invoke_without_command=True,
    help="API keys (needs one with the scope admin, or operator). Without a command: all.",
)
TenantOption = Annotated[
    str | None,
    typer.Option(help="Only this tenant's. Another's takes an operator.", autocompletion=completing("tenant")),
]
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


@app.callback()
def default(context: typer.Context, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_keys(None, limit, every, as_json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    tenant: Annotated[
        str | None,
        typer.Option(help="Whose; default: yours. Another's takes an operator.", autocompletion=completing("tenant")),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, train, generate, admin (of the tenant) or operator (of all); repeatable. "
            "Default: the first three."
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long it lasts: 30d, 12h, 90m, or seconds. Default: as long as the key in use."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown once."""
    seconds = None if expires is None else _seconds(expires)
    with Osora() as osora:
        key = osora.keys.create(name, tenant=tenant, scopes=scope, expires_in=seconds)
    if as_json:
        print_json(key)
    else:
        say(f"{key['key']}\nKeep it now: it is not shown again (id {key['id']}).")


@app.command("list")
def list_keys(
    tenant: TenantOption = None, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False
) -> None:
    """The keys of your tenant, or an operator's: of all, without their secrets."""
    with Osora() as osora:
        keys = fetch(osora.keys.list(most(limit, every), tenant=tenant))
    columns = ("id", "name", "tenant", "scopes", "ends in", "created", "by", "used", "expires", "revoked", "hash")
    spare = ("by", "ends in", "created", "hash", "revoked", "expires", "used", "tenant", "scopes")
    show_list(keys, as_json, columns, _row, "No keys. Next: osora key create NAME", spare=spare, cropped="name")
    hanging = sum(not key.get("revoked_at") and key.get("server_secret") in ("fallback", "unknown") for key in keys)
    if hanging and not as_json:
        print_note(f"Not hashed with the current server secret yet: {hanging} of these. Each is when it is used.")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", autocompletion=completing("key"))],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make a key useless."""
    confirm(f"Revoke {key_id}? Whoever uses it is shut out within a second.", yes, as_json)
    with Osora() as osora:
        osora.keys.revoke(key_id)
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        say(f"Revoked {key_id}.")


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([smhd]?)", text.strip())
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no time: say 30d, 12h, 90m, or seconds", param_hint="--expires")
    return int(found[1]) * _SECONDS[found[2]]


def _row(key: Key) -> tuple[object, ...]:
    return (
        key["id"],
        key["name"],
        key.get("tenant"),
        " ".join(key.get("scopes", [])),
        f"…{key['hint']}" if key.get("hint") else "",
        ago(key.get("created_at")),
        key.get("created_by") or "",
        ago(key.get("last_used_at")),
        when(key.get("expires_at")),
        ago(key.get("revoked_at")),
        key.get("server_secret", ""),
    )
