"""A base followed until it can be used, for `osora bases add`."""

import time
from collections.abc import Iterator

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from osora.cli.output import ExitCode, console, duration, human_bytes, is_terminal, print_error, print_json_line, say
from osora.schemas import Base
from osora.sdk import Osora

_LOOK_SECONDS = 0.5
_DONE = {
    "waiting": "waits to be prepared",
    "downloading": "is being downloaded",
    "converting": "is being converted",
    "checking": "is being checked",
    "basis": "computes its basis",
    "ready": "is ready",
    "failed": "failed",
}


def how_far(base: Base) -> str:
    """Its state, with the part of it that is done."""
    state, part = base.get("state", "ready"), base.get("progress")
    return state if part is None else f"{state} {part:.0%}"


def follow_base(osora: Osora, name: str, as_json: bool) -> None:
    """Show how far a base is until it can be trained and called. Raises `typer.Exit` with 1 if it cannot be."""
    started = time.monotonic()
    try:
        base = _shown(osora, name, as_json)
    except KeyboardInterrupt:
        next_action = f"`osora bases` says how far it is, `osora bases remove {name}` takes it off"
        print_error(f"Stopped watching; {name} goes on", next_action, as_json, code="interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if base is None:
        print_error(f"{name} was removed meanwhile", None, as_json, code="base_not_found")
        raise typer.Exit(ExitCode.NOT_FOUND)
    if not base.get("loaded"):
        print_error(base.get("problem") or f"{name} failed", base.get("next_action"), as_json, code="base_unusable")
        raise typer.Exit(ExitCode.FAILED)
    if not as_json:
        values = (base.get("parameters") or 0) / 1e6
        rank = (base.get("basis") or {}).get("rank")
        say(
            f"{name} is ready after {duration(time.monotonic() - started)}: {base.get('family')}, {values:.1f} million "
            f"values, {human_bytes(base.get('bytes'))}, rank {rank}."
        )
        say(f'Next: osora train FILE.jsonl --base {name}; osora generate "…" --base {name}')


def _shown(osora: Osora, name: str, as_json: bool) -> Base | None:
    """The base as it is at the end; None if it is gone."""
    base: Base | None = None
    if as_json or not is_terminal():
        said = None
        for base in _looks(osora, name):
            line = base and (base.get("state"), base.get("loaded"))
            if as_json and base is not None:
                print_json_line(base)
            elif base is not None and line != said:
                say(f"{name} {_told(base)}")
            said = line
        return base
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console(), transient=True) as progress:
        task = progress.add_task(name, total=None)
        for base in _looks(osora, name):
            if base is not None:
                part = base.get("progress")
                total = None if part is None else 1.0
                progress.update(task, description=f"{name} {_told(base)}", completed=part or 0.0, total=total)
    return base


def _looks(osora: Osora, name: str) -> Iterator[Base | None]:
    """What the service says of it, again and again, until it goes no further."""
    while True:
        base = next((one for one in osora.bases.list() if one["name"] == name), None)
        yield base
        if base is None or base.get("state") == "failed":
            return
        # What is ready and has a problem is what no inference server has room for.
        if base.get("state") == "ready" and (base.get("loaded") or base.get("problem") is not None):
            return
        time.sleep(_LOOK_SECONDS)


def _told(base: Base) -> str:
    state, left = base.get("state", "ready"), base.get("seconds_left")
    if state == "ready" and not base.get("loaded"):
        return "is being loaded"
    return _DONE[state] + ("" if left is None else f", about {duration(left)} left")
