"""`osora doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from osora.cli.output import ExitCode, Json, print_json, say, sentences
from osora.cli.server_parts import require_server
from osora.discovery import absolute
from osora.discovery import data_dir as default_data_dir


def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Default: OSORA_DATA_DIR, else ~/.osora.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether `osora serve` can run here, with these settings and bases: nothing is started.

    Exit code 0 if all is well, 1 if anything is wrong.
    """
    require_server()
    from osora.doctor.examine import examine  # not at the top: a client has none of what it imports

    findings = []
    for finding in examine(absolute(data_dir or default_data_dir())):
        findings.append(finding)
        if not as_json:
            state = "ok   " if finding.ok else "WRONG"
            said = finding.message if finding.ok else sentences(finding.message, finding.next_action)
            say(f"{state}  {finding.item:<14}  {said}")
    wrong = [finding for finding in findings if not finding.ok]
    if as_json:
        print_json({"ok": not wrong, "findings": [{**asdict(finding), "ok": finding.ok} for finding in findings]})
    if wrong:
        raise typer.Exit(ExitCode.FAILED)
