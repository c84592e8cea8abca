"""`osora files check` and `osora files report`."""

from pathlib import Path
from typing import Annotated

import typer

from osora.cli.file_report import print_report
from osora.cli.names import completing
from osora.cli.output import ExitCode, Json, print_json
from osora.sdk import Osora
from osora.training_files.checking import examine
from osora.training_files.tokens import default_base

Source = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="On this machine.")
]
BaseName = Annotated[
    str | None,
    typer.Option(metavar="NAME|FOLDER", help="In whose tokens. Default: the first of OSORA_BASES, else osora-tiny."),
]


def check(
    path: Source,
    base: BaseName = None,
    training: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="The file that this one is to validate."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a training file, and what may be, without a service.

    Exit code 1 if the file would be refused, or a job on it that says nothing of rows that are too long.
    """
    report = examine(path, base or default_base(), training)
    if as_json:
        print_json(report)
    else:
        print_report(report, str(path))
    stops = any(tokens.get("rows_refused") or tokens.get("rows_over") for tokens in report["tokens"].values())
    if report["problem_count"] or stops:
        raise typer.Exit(ExitCode.FAILED)


def report(
    file_id: Annotated[
        str, typer.Argument(metavar="FILE_ID", help="As `osora files` lists it.", autocompletion=completing("file"))
    ],
    base: Annotated[
        str | None,
        typer.Option(
            help="In whose tokens. Default: in those of all bases on offer.", autocompletion=completing("base")
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the service's report on a training file."""
    with Osora() as osora:
        found = osora.files.report(file_id, base)
        name = file_id if as_json else osora.files.get(file_id)["filename"]
    if as_json:
        print_json(found)
    else:
        print_report(found, name)
