"""`osora files`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from osora.cli import check_file, fix_file
from osora.cli.asking import Yes, confirm
from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, most, show_list
from osora.cli.names import completing
from osora.cli.output import Json, ago, human_bytes, print_fields, print_json, print_json_line, say, when
from osora.cli.transfers import new_path, receiving, upload
from osora.schemas import File
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Datasets and result files. Without a command: the newest ones.")
FileId = Annotated[
    str, typer.Argument(metavar="FILE_ID", help="As `osora files` lists it.", autocompletion=completing("file"))
]


app.command("check")(check_file.check)
app.command("fix")(fix_file.fix)
app.command("report")(check_file.report)


@app.callback()
def default(context: typer.Context, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_files(limit, every, as_json)


@app.command("list")
def list_files(limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    """The newest files."""
    with Osora() as osora:
        files = fetch(osora.files.list(most(limit, every)))
    columns = ("id", "name", "format", "rows", "size", "created", "purpose")
    empty = "No files. Next: osora files upload FILE"
    show_list(files, as_json, columns, _row, empty, spare=("purpose", "format", "created"), cropped="name")


@app.command("upload")
def send(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")],
    as_json: Json = False,
) -> None:
    """Upload a dataset. Identical bytes that are there already are not sent again."""
    with Osora() as osora:
        file, is_new = upload(osora, path, as_json)
    if as_json:
        print_json(file)
    else:
        say(told(file, path, is_new))


@app.command()
def show(file_id: FileId, as_json: Json = False) -> None:
    """One file."""
    with Osora() as osora:
        file = osora.files.get(file_id)
    if as_json:
        print_json(file)
        return
    details = file.get("osora") or {}
    print_fields(
        {
            "id": file["id"],
            "name": file.get("filename"),
            "size": human_bytes(file.get("bytes")),
            "format": details.get("format"),
            "rows": details.get("rows"),
            "purpose": file.get("purpose"),
            "created": when(file.get("created_at")),
            "expires": when(file.get("expires_at")),
            "sha256": details.get("sha256"),
        }
    )


@app.command()
def download(
    file_id: FileId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: its own name, here.")] = None,
    as_json: Json = False,
) -> None:
    """Save a file: a dataset as it was uploaded, or a job's figures."""
    if output is None:
        with Osora() as osora:
            output = Path(Path(osora.files.get(file_id)["filename"]).name or file_id)
    path = new_path(output)
    with receiving(path.name, as_json) as osora:
        size = osora.files.download(file_id, path)
    if as_json:
        print_json({"path": str(path), "bytes": size})
    else:
        say(f"{path}: {human_bytes(size)}")


@app.command()
def delete(
    file_ids: Annotated[
        list[str], typer.Argument(metavar="FILE_ID...", help="Which.", autocompletion=completing("file"))
    ],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete files for good."""
    confirm(f"Delete {', '.join(file_ids)} for good?", yes, as_json, always=True)
    with Osora() as osora:
        for file_id in file_ids:
            osora.files.delete(file_id)
            if as_json:
                print_json_line({"id": file_id, "deleted": True})
            else:
                say(f"Deleted {file_id}.")


def told(file: File, path: Path, is_new: bool) -> str:
    """`file-1: train.jsonl, 650 rows (chat), 120.0 KiB`."""
    details = file.get("osora") or {}
    count = details.get("rows")
    rows = f"{count:,} {'row' if count == 1 else 'rows'} ({details.get('format')}), " if count is not None else ""
    known = "" if is_new else " (already there: not sent again)"
    return f"{file['id']}: {path.name}, {rows}{human_bytes(file.get('bytes'))}{known}"


def _row(file: Any) -> tuple[object, ...]:
    details = file.get("osora") or {}
    return (
        file["id"],
        file.get("filename"),
        details.get("format"),
        details.get("rows"),
        human_bytes(file.get("bytes")),
        ago(file.get("created_at")),
        file.get("purpose"),
    )
