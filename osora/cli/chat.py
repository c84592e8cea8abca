"""`osora chat`."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from osora.cli.bases import chosen_base
from osora.cli.conversation import Commands, Conversation
from osora.cli.names import completing
from osora.cli.output import Json, print_json_line, print_note, say
from osora.cli.speaking import Spoken, speak
from osora.errors import OsoraError
from osora.sdk import Osora

_PROMPT = "> "


def chat(
    adapter: Annotated[
        str | None,
        typer.Argument(
            metavar="ADAPTER",
            help="Whom to talk to: an adapter or a checkpoint, by id or name, or an alias. Without: the bare base.",
            autocompletion=completing("adapter"),
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The bare base, if there are several.", autocompletion=completing("base")),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before all turns.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer, at most.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: always the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Draw from the likeliest tokens only.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same text again.")] = None,
    strength: Annotated[float | None, typer.Option(help="Scale the adapter; 1 is as it was trained.")] = None,
    as_json: Json = False,
) -> None:
    """Talk to an adapter or a base: it remembers what was said. /help lists what can be typed besides.

    Ctrl-C stops an answer, Ctrl-D ends the chat. Piped input is taken line by line, each a turn. With --json: a JSON
    line for each answer.
    """
    if adapter and base:
        raise typer.BadParameter("an adapter has its base already", param_hint="--base")
    with Osora() as osora:
        if adapter is None:
            base = chosen_base(osora, base)
        else:
            adapter = _there(osora, adapter)
        settings = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        talk = Conversation(base=base, adapter=adapter, system=system, strength=strength, settings=settings)
        commands = Commands(talk, lambda name: _there(osora, name))
        is_person = sys.stdin.isatty() and not as_json
        if is_person:
            with contextlib.suppress(ImportError):  # where there is one, lines can be edited and brought back
                import readline  # noqa: F401
            say(f"You talk to {talk.partner}. /help lists what can be typed besides, Ctrl-D ends it.")
        for line in _lines(is_person):
            if commands.take(line):
                if commands.is_over:
                    return
            elif line.strip():
                _turn(osora, talk, line, is_person, as_json)


def _turn(osora: Osora, talk: Conversation, line: str, is_person: bool, as_json: bool) -> None:
    """Ask, show the answer, remember both. A person is told of an error and may go on; a pipe ends with it."""
    try:
        spoken = speak(osora.stream(talk.asked(line), adapter=talk.adapter, **talk.options()), quiet=as_json)
    except OsoraError as error:
        if not is_person:
            raise
        talk.tell(error)
        return
    talk.remember(line, spoken.text)
    if as_json:
        print_json_line({"role": "assistant", "content": spoken.text, "finish_reason": spoken.finish_reason})
    _remark(spoken, is_person, as_json)


def _remark(spoken: Spoken, is_person: bool, as_json: bool) -> None:
    if spoken.finish_reason == "stopped":
        print_note("(stopped)", as_json)
        if not is_person:
            raise KeyboardInterrupt
    elif spoken.finish_reason == "length" and not as_json:
        more = "/max-tokens N" if is_person else "--max-tokens"
        print_note(f"(cut after {spoken.tokens} tokens: a higher {more} lets an answer go on)")


def _lines(is_person: bool) -> Iterator[str]:
    """What is typed or piped, line by line."""
    if not is_person:
        for line in sys.stdin.buffer:
            yield line.decode(errors="replace").rstrip("\r\n")
        return
    while True:
        try:
            yield input(_PROMPT)
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("\n(Ctrl-D or /quit ends the chat.)")


def _there(osora: Osora, name: str) -> str:
    """The name, if something answers to it. Raises OsoraAPIError."""
    with contextlib.suppress(OsoraError):
        osora.aliases.get(name)  # which may stand for several adapters, or for a base
        return name
    osora.adapters.get(name)
    return name
