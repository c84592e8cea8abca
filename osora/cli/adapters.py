"""`osora adapters`."""

import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from osora.cli.asking import Yes, confirm
from osora.cli.import_adapter import import_adapter
from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, most, show_list
from osora.cli.names import completing
from osora.cli.output import Json, ago, human_bytes, print_fields, print_json, say, when
from osora.cli.transfers import new_path, receiving
from osora.errors import OsoraError
from osora.schemas import Adapter, AdapterFormat
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Adapters. Without a command: the newest ones.")
app.command("import")(import_adapter)
AdapterId = Annotated[
    str,
    typer.Argument(metavar="ADAPTER", help="Its id or its name (ft:…).", autocompletion=completing("adapter")),
]
_FORMATS = (
    "As trained (osora), as a LoRA for vLLM and PEFT, or with its base: merged for transformers, gguf for llama.cpp "
    "and Ollama."
)


@app.callback()
def default(context: typer.Context, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_adapters(limit, every, as_json)


@app.command("list")
def list_adapters(limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    """The newest adapters."""
    with Osora() as osora:
        adapters = fetch(osora.adapters.list(most(limit, every)))
    columns = ("id", "name", "base", "size", "created")
    empty = "No adapters. Next: osora train FILE.jsonl"
    show_list(adapters, as_json, columns, _row, empty, spare=("base", "size", "created"))


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
    format: Annotated[
        AdapterFormat | None, typer.Option(help=f"Default: as it was trained, or as it came. {_FORMATS}")
    ] = None,
    as_json: Json = False,
) -> None:
    """Save an adapter as one ZIP."""
    form = "" if format in (None, "osora") else f"-{format}"
    path = new_path(output or Path(f"{_file_name(adapter)}{form}.zip"))
    with receiving(path.name, as_json) as osora:
        size = osora.adapters.download(adapter, path, format)
    if as_json:
        print_json({"path": str(path), "bytes": size})
    else:
        say(f"{path}: {human_bytes(size)}")


@app.command()
def export(
    adapter: AdapterId,
    format: Annotated[AdapterFormat, typer.Option(help=_FORMATS)] = "lora",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: ADAPTER-FORMAT here.")] = None,
    as_json: Json = False,
) -> None:
    """Save an adapter as a folder that other programs read as it is."""
    folder = new_path(output or Path(f"{_file_name(adapter)}-{format}"))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as draft:
        archive = Path(draft, "download.zip")
        with receiving(folder.name, as_json) as osora:
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
def delete(adapter: AdapterId, yes: Yes = False, as_json: Json = False) -> None:
    """Delete an adapter for good."""
    confirm(f"Delete {adapter} for good?", yes, as_json, always=True)
    with Osora() as osora:
        osora.adapters.delete(adapter)
    if as_json:
        print_json({"id": adapter, "deleted": True})
    else:
        say(f"Deleted {adapter}.")


def _row(adapter: Adapter) -> tuple[object, ...]:
    size = human_bytes(adapter.get("bytes"))
    return adapter["id"], adapter["name"], adapter["base"], size, ago(adapter["created_at"])


def _file_name(adapter: str) -> str:
    return adapter.replace(":", "-").replace("/", "-")
