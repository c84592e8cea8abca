"""`osora tenant`."""

from typing import Annotated

import typer

from osora.cli.asking import Yes, confirm
from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, most, show_list
from osora.cli.names import completing
from osora.cli.output import Json, ago, print_json, say
from osora.schemas import Tenant
from osora.sdk import Osora

app = typer.Typer(
    invoke_without_command=True,
    help="Tenants of the installation (needs a key with the scope operator). Without a command: all.",
)
TenantName = Annotated[str, typer.Argument(metavar="NAME", autocompletion=completing("tenant"))]


@app.callback()
def default(context: typer.Context, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_tenants(limit, every, as_json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A part of its models' names.")], as_json: Json = False
) -> None:
    """Make a tenant. It has no key yet."""
    with Osora() as osora:
        tenant = osora.tenants.create(name)
    _show(tenant, f"Created {tenant['name']}. Next: osora key create NAME --tenant {tenant['name']}", as_json)


@app.command("list")
def list_tenants(limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    """The tenants, newest first."""
    with Osora() as osora:
        tenants = fetch(osora.tenants.list(most(limit, every)))
    columns = ("name", "id", "created", "suspended")
    show_list(tenants, as_json, columns, _row, "No tenants. Next: osora tenant create NAME", spare=("created",))


@app.command()
def suspend(name: TenantName, yes: Yes = False, as_json: Json = False) -> None:
    """Shut a tenant out: no key of it works, and its jobs wait. Nothing is deleted."""
    confirm(f"Suspend {name}? Its keys are refused and its jobs wait, until it is resumed.", yes, as_json)
    with Osora() as osora:
        tenant = osora.tenants.suspend(name)
    _show(tenant, f"Suspended {tenant['name']}. To let it in again: osora tenant resume {tenant['name']}", as_json)


@app.command()
def resume(name: TenantName, as_json: Json = False) -> None:
    """Let a suspended tenant in again; its jobs go on where they were."""
    with Osora() as osora:
        tenant = osora.tenants.resume(name)
    _show(tenant, f"Resumed {tenant['name']}.", as_json)


def _show(tenant: Tenant, said: str, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
    else:
        say(said)


def _row(tenant: Tenant) -> tuple[object, ...]:
    return tenant["name"], tenant["id"], ago(tenant.get("created_at")), ago(tenant.get("suspended_at"))
