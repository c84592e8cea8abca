"""`osora bases`."""

from pathlib import Path
from typing import Annotated

import typer

from osora.cli.adding import follow_base, how_far
from osora.cli.asking import Yes, confirm
from osora.cli.dial import show_presets
from osora.cli.names import completing, nearest
from osora.cli.output import Json, human_bytes, print_json, print_table, say
from osora.schemas import Base
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Bases. Without a command: those on offer.")

BaseName = Annotated[str, typer.Argument(metavar="NAME", help="A base.", autocompletion=completing("base"))]


@app.callback()
def default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_bases(as_json=as_json)


@app.command("list")
def list_bases(as_json: Json = False) -> None:
    """The bases that the service offers, and how far those are that were added."""
    with Osora() as osora:
        bases = osora.bases.list()
    if as_json:
        print_json(bases)
        return
    columns = ("name", "state", "loaded", "family", "values", "memory", "rank", "source")
    empty = "No bases. Next: osora bases add smollm2-135m"
    print_table(columns, map(_row, bases), empty, spare=("source", "family", "values"))
    for base in bases:
        if base.get("problem"):
            next_action = base.get("next_action")
            say(f"{base['name']}: {base['problem']}." + (f" Next: {next_action}." if next_action else ""))
    show_presets(bases)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called; smollm2-135m needs no more.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="A directory, a .gguf file, or owner/name on a model hub."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait until it can be used.")] = False,
    as_json: Json = False,
) -> None:
    """Add a base to the running service. Takes an operator's key.

    Its files are read where the service runs, and stay where they are; of a package or a .gguf file the service makes a
    copy of its own.
    """
    with Osora() as osora:
        base = osora.bases.add(name, _from_here(source))
        if not detach:
            follow_base(osora, name, as_json)
        elif as_json:
            print_json(base)
        else:
            say(f"{name} is being made ready. Next: osora bases")


@app.command()
def remove(
    name: BaseName,
    leave_adapters: Annotated[
        bool, typer.Option("--leave-adapters", help="Although adapters or checkpoints are on it: they are kept.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a base that was added off the service. Takes an operator's key.

    None of your files is deleted, nor is any adapter.
    """
    confirm(f"Remove the base {name}?", yes, as_json)
    with Osora() as osora:
        removal = osora.bases.remove(name, leave_adapters=leave_adapters)
    if as_json:
        print_json(removal)
        return
    kept = removal["adapters"] + removal["imported_adapters"]
    say(f"Removed {name}." + (f" {kept} adapters on it are kept, and work when it is added again." if kept else ""))


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
    names = [base["name"] for base in osora.bases.list() if base.get("state", "ready") == "ready"]
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    meant = nearest(name, names) if name else None
    known = f"did you mean {meant}? " if meant else ""
    raise typer.BadParameter(f"{known}name one of: {', '.join(names) or '(none)'}", param_hint="--base")


def _from_here(source: str | None) -> str | None:
    """A path from / on, where a file or a directory of this machine is meant."""
    if source is None:
        return None
    path = Path(source).expanduser()
    is_path = source.startswith((".", "~", "/")) or source.lower().endswith(".gguf")
    return str(path.absolute()) if is_path or (path.is_dir() and (path / "config.json").is_file()) else source


def _row(base: Base) -> tuple[object, ...]:
    values = base.get("parameters")
    return (
        base["name"],
        how_far(base),
        "yes" if base.get("loaded") else "no",
        base.get("family"),
        None if values is None else f"{values / 1e6:.1f} M",
        human_bytes(base.get("bytes")),
        (base.get("basis") or {}).get("rank"),
        base.get("source"),
    )
