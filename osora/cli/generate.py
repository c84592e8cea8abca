"""`osora generate`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from osora.cli.names import completing
from osora.cli.output import Json, plain, print_json, print_json_line, print_note, say
from osora.schemas import Generation, Message
from osora.sdk import Osora


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text; - reads it from standard input.")],
    adapter: Annotated[
        str | None,
        typer.Option(
            help="An adapter or a checkpoint, by id or name, or an alias; else the bare base answers.",
            autocompletion=completing("adapter"),
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The bare base to ask, if there are several.", autocompletion=completing("base")),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before the prompt.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Send PROMPT as it is: a text to be continued.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="At most so many tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: always the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Draw from the likeliest tokens only.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same text again.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End the text here. May be given more than once.")] = None,
    schema: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file with a JSON schema for the answer.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="Scale the adapter; 1 is as it was trained.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the text while it is made.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a base or an adapter. PROMPT is the user's turn of a conversation.

    With --raw it is a text to be continued, for adapters trained on {"prompt", "completion"} lines.
    With --json: the whole answer with usage, timing and receipt; with --stream as well, JSON lines before it.
    """
    if raw and system:
        raise typer.BadParameter("a raw prompt has none; put it into the text", param_hint="--system")
    prompt = _read_prompt() if prompt == "-" else prompt
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    asked = prompt if raw else messages
    options = {
        "base": base,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stop": stop or None,
        "json_schema": _read_schema(schema),
        "strength": strength,
    }
    with Osora() as osora:
        if not stream:
            answer = osora.generate(asked, adapter=adapter, **options)
            if as_json:
                print_json(answer)
                return
            say(answer["text"])
            _note_cut(answer)
            return
        pieces = osora.stream(asked, adapter=adapter, **options)
        for piece in pieces:
            if as_json:
                print_json_line({"text": piece})
            else:
                sys.stdout.write(plain(piece))
                sys.stdout.flush()
        if as_json:
            print_json_line(pieces.result)
            return
        say("")
        _note_cut(pieces.result)


def _note_cut(answer: Generation | None) -> None:
    """Say that an answer was not at its end: half a JSON looks like a whole one that is wrong."""
    if answer and answer.get("finish_reason") == "length":
        count = answer.get("usage", {}).get("completion_tokens")
        print_note(f"Note: the answer was cut after {count} tokens. A higher --max-tokens lets it go on.")


def _read_prompt() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"standard input is not UTF-8: {error}", param_hint="PROMPT") from error


def _read_schema(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}", param_hint="--schema") from error
