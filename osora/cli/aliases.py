"""`osora aliases`."""

import re
from typing import Annotated

import typer

from osora.cli.asking import Yes, confirm
from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, show_list
from osora.cli.names import completing
from osora.cli.output import Json, ago, print_fields, print_json, print_table, say, when
from osora.schemas import Alias
from osora.sdk import Osora

app = typer.Typer(
    invoke_without_command=True, help="Names of your own for models. Without a command: the newest aliases."
)
AliasName = Annotated[str, typer.Argument(metavar="NAME", help="The alias.", autocompletion=completing("alias"))]
ExpectedVersion = Annotated[
    int | None, typer.Option(min=0, help="Only if the alias is at this version; 0: only if it is new.")
]

_WEIGHTED = re.compile(r"(?P<target>.+)=(?P<weight>[0-9]+)")


@app.callback()
def default(context: typer.Context, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_aliases(limit, every, as_json)


@app.command("set")
def set_alias(
    name: AliasName,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET[=WEIGHT]...",
            help="Adapters, checkpoints, bases; several share the requests.",
            autocompletion=completing("model"),
        ),
    ],
    expected_version: ExpectedVersion = None,
    as_json: Json = False,
) -> None:
    """Make an alias, or move it: `osora aliases set triage ft:…:old=95 ft:…:new=5`."""
    weights = _weights(targets)
    with Osora() as osora:
        alias = osora.aliases.set(name, weights, expected_version=expected_version)
    _report(alias, as_json)


@app.command("list")
def list_aliases(limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    """The newest aliases."""
    with Osora() as osora:
        aliases = fetch(osora.aliases.list, limit, every, key="name")
    columns = ("name", "stands for", "version", "changed")
    empty = "No aliases. Next: osora aliases set NAME TARGET"
    show_list(aliases, as_json, columns, _row, empty, spare=("version", "changed"))


@app.command()
def show(name: AliasName, as_json: Json = False) -> None:
    """What an alias stands for."""
    with Osora() as osora:
        alias = osora.aliases.get(name)
    if as_json:
        print_json(alias)
        return
    print_fields(
        {
            "name": alias["name"],
            "stands for": _shares(alias["targets"]),
            "version": alias["version"],
            "created": when(alias["created_at"]),
            "changed": when(alias["updated_at"]),
        }
    )


@app.command()
def history(name: AliasName, as_json: Json = False) -> None:
    """What an alias has stood for, newest first, and which key changed it."""
    with Osora() as osora:
        versions = osora.aliases.history(name)
    if as_json:
        print_json(versions)
        return
    rows = [
        (
            v["version"],
            _shares(v["targets"]) or "(deleted)",
            when(v["created_at"]),
            v.get("key_name"),
            f"roll-back to {v['restored']}" if v.get("restored") else "",
        )
        for v in versions
    ]
    print_table(("version", "stands for", "since", "by the key", ""), rows, "No versions.")


@app.command()
def rollback(
    name: AliasName,
    to: Annotated[int | None, typer.Option(min=1, help="A version; default: that before the last change.")] = None,
    expected_version: ExpectedVersion = None,
    as_json: Json = False,
) -> None:
    """Let an alias stand again for what it did before; a deleted one as well."""
    with Osora() as osora:
        alias = osora.aliases.rollback(name, to, expected_version=expected_version)
    _report(alias, as_json)


@app.command()
def delete(name: AliasName, yes: Yes = False, as_json: Json = False) -> None:
    """Delete an alias. What it stands for stays."""
    confirm(f"Delete the alias {name}?", yes, as_json)
    with Osora() as osora:
        osora.aliases.delete(name)
    if as_json:
        print_json({"name": name, "deleted": True})
    else:
        say(f"Deleted {name}. To have it back: osora aliases rollback {name}")


def _row(alias: Alias) -> tuple[object, ...]:
    return alias["name"], _shares(alias["targets"]), alias["version"], ago(alias["updated_at"])


def _weights(targets: list[str]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for given in targets:
        found = _WEIGHTED.fullmatch(given)
        target, weight = (found["target"], int(found["weight"])) if found else (given, 1)
        if target in weights:
            raise typer.BadParameter(f"{target} is there twice", param_hint="TARGET")
        weights[target] = weight
    return weights


def _shares(weights: dict[str, int]) -> str:
    """`a`, or `a 95%, b 5%`."""
    if len(weights) == 1:
        return next(iter(weights))
    whole = sum(weights.values())
    return ", ".join(f"{name} {100 * weight / whole:.3g}%" for name, weight in weights.items())


def _report(alias: Alias, as_json: bool) -> None:
    if as_json:
        print_json(alias)
    else:
        say(f"{alias['name']} stands for {_shares(alias['targets'])} (version {alias['version']})")
