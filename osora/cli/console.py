"""`osora console`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from osora.cli.output import ExitCode, Json, print_error, print_json, say
from osora.discovery import absolute, serve_file
from osora.discovery import data_dir as default_data_dir


def console(
    data_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Default: OSORA_DATA_DIR, else ~/.osora."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a link that signs you in to the console of the `osora serve` on this machine, once."""
    # Not at the top: a client on Windows has no `osora serve`.
    from osora.serve.console_link import issue

    directory = absolute(data_dir or default_data_dir())
    try:
        url = json.loads(serve_file(directory).read_text())["console_url"]
    except (OSError, ValueError, KeyError):
        print_error(f"No console runs on {directory}", "start one: osora serve", as_json, code="no_console")
        raise typer.Exit(ExitCode.FAILED) from None
    link = issue(directory, url)
    if as_json:
        print_json({"url": url, "link": link})
    else:
        say(link)
