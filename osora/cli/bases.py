"""`osora bases`."""

from pathlib import Path
from typing import Annotated

import typer

from osora.cli.dial import show_presets
from osora.cli.names import completing, nearest
from osora.cli.output import Json, human_bytes, print_json, print_table, say
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Bases. Without a command: those on offer.")


@app.callback()
def default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_bases(as_json=as_json)


@app.command("list")
def list_bases(as_json: Json = False) -> None:
    """The bases that the service offers."""
    with Osora() as osora:
        bases = osora.bases()
    if as_json:
        print_json(bases)
        return
    rows = [
        (b["name"], "yes" if b.get("loaded") else "no", human_bytes(b.get("bytes")), (b.get("basis") or {}).get("rank"))
        for b in bases
    ]
    print_table(("name", "loaded", "size", "rank"), rows, "No bases. Next: name one in OSORA_BASES")
    show_presets(bases)


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A base, or the hash of its basis.", autocompletion=completing("base"))
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to; default: where osora_core looks for it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch the basis of a base: with it, downloaded adapters load in PEFT on this machine."""
    with Osora() as osora:
        path = osora.pull_basis(name, folder)
    size = path.stat().st_size
    if as_json:
        print_json({"path": str(path), "bytes": size})
        return
    say(f"{path}: {human_bytes(size)}")
    if folder is not None:
        say(f"Next: OSORA_BASIS_FROM={folder.absolute()} tells osora_core where it is.")


def chosen_base(osora: Osora, name: str | None) -> str:
    """A base on offer: the one named, or the only one. Raises `typer.BadParameter`."""
    names = [base["name"] for base in osora.bases()]
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    meant = nearest(name, names) if name else None
    known = f"did you mean {meant}? " if meant else ""
    raise typer.BadParameter(f"{known}name one of: {', '.join(names) or '(none)'}", param_hint="--base")
