"""docs/command-line.md names every command that there is, and none that there is not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from osora.cli import app
from osora.cli.conversation import Commands, Conversation
from osora.cli.output import ExitCode

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Those that do something, by their words."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def test_every_command_is_there_and_each_that_is_there_exists() -> None:
    group = typer.main.get_group(app)
    exist = set(commands(group))
    code = "\n".join([*re.findall(r"`(osora [^`]+)`", PAGE), *re.findall(r"^osora .*$", PAGE, re.MULTILINE)])
    named = re.findall(r"^osora ([a-z]+)(?: ([a-z]+))?", code, re.MULTILINE)
    assert {path for path in exist if not any(path == words[: len(path)] for words in named)} == set()
    groups = {path[0] for path in exist if len(path) == 2} | {"key"}
    unknown = {
        words
        for words in named
        if not (words in exist or words[:1] in exist or (words[0] in groups and words[1] == ""))
    }
    assert unknown == set()


def test_every_command_takes_json() -> None:
    def leaf(path: tuple[str, ...]) -> Any:
        found: Any = typer.main.get_group(app)
        for word in path:
            found = found.commands[word]
        return found

    without = {
        path
        for path in commands(typer.main.get_group(app))
        if "--json" not in {flag for parameter in leaf(path).params for flag in parameter.opts}
    }
    assert without == set()


def test_the_exit_codes_and_what_can_be_typed_in_a_chat() -> None:
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == set(ExitCode)
    talk = Conversation(None, None, None, None, {})
    typed = set(re.findall(r"`(/[a-z-]+)", PAGE))
    assert typed == set(Commands(talk, str)._known)
