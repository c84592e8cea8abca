"""`osora adapters`."""

import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from osora.cli.output import Json, human_bytes, print_fields, print_json, print_table, say, when
from osora.errors import OsoraError
from osora.schemas import AdapterFormat
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Adapters. Without a command: the newest ones.")
AdapterId = Annotated[str, typer.Argument(metavar="ADAPTER", help="Its id or its name (ft:…).")]


@app.callback()
def default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_adapters(as_json=as_json)


@app.command("list")
def list_adapters(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20, as_json: Json = False
) -> None:
    """The newest adapters."""
    with Osora() as osora:
        adapters = list(osora.adapters.list(limit=limit))
    if as_json:
        print_json(adapters)
        return
    rows = [(a["id"], a["name"], a["base"], human_bytes(a.get("bytes")), when(a["created_at"])) for a in adapters]
    print_table(("id", "name", "base", "size", "created"), rows, "No adapters. Next: osora train FILE.jsonl")


@app.command()
def show(adapter: AdapterId, as_json: Json = False) -> None:
    """One adapter."""
    with Osora() as osora:
        found = osora.adapters.get(adapter)
    if as_json:
        print_json(found)
        return
    times = {
        "created_at": when(found["created_at"]),
        "expires_at": when(found.get("expires_at")),
        "bytes": human_bytes(found.get("bytes")),
    }
    print_fields({name.replace("_", " "): value for name, value in ({**found, **times}).items()})


@app.command()
def download(
    adapter: AdapterId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: ADAPTER.zip here.")] = None,
    as_json: Json = False,
) -> None:
    """Save an adapter: a ZIP of a PEFT directory."""
    path = _new(output or Path(f"{_file_name(adapter)}.zip"))
    with Osora() as osora:
        size = osora.adapters.download(adapter, path)
    if as_json:
        print_json({"path": str(path), "bytes": size})
    else:
        say(f"{path}: {human_bytes(size)}")


@app.command()
def export(
    adapter: AdapterId,
    format: Annotated[AdapterFormat, typer.Option(help="As trained, as a LoRA, or merged into its base.")] = "lora",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: ADAPTER-FORMAT here.")] = None,
    as_json: Json = False,
) -> None:
    """Save an adapter as a folder: a LoRA for vLLM and PEFT, or a whole checkpoint for transformers."""
    folder = _new(output or Path(f"{_file_name(adapter)}-{format}"))
    with Osora() as osora, tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as draft:
        archive = Path(draft, "download.zip")
        osora.adapters.download(adapter, archive, format)
        unpacked = Path(draft, "unpacked")
        try:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(unpacked)
        except zipfile.BadZipFile as error:
            raise OsoraError(f"What the service sent is no ZIP archive: {error}") from error
        unpacked.rename(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    if as_json:
        print_json({"path": str(folder), "bytes": size})
    else:
        say(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))} ({human_bytes(size)})")


@app.command()
def delete(
    adapter: AdapterId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete an adapter for good."""
    if not yes:
        if as_json or not is_asked():
            raise typer.BadParameter("nobody can be asked here; say it with --yes", param_hint="--yes")
        typer.confirm(f"Delete {adapter} for good?", abort=True)
    with Osora() as osora:
        osora.adapters.delete(adapter)
    if as_json:
        print_json({"id": adapter, "deleted": True})
    else:
        say(f"Deleted {adapter}.")


def is_asked() -> bool:
    """Whether a person sits before the terminal."""
    return sys.stdin.isatty()


def _new(path: Path) -> Path:
    """The path, if something can be made there. Raises `typer.BadParameter`."""
    if path.exists():
        raise typer.BadParameter(f"{path} exists already; name another", param_hint="--output")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}; make it first", param_hint="--output")
    return path


def _file_name(adapter: str) -> str:
    return adapter.replace(":", "-").replace("/", "-")
