"""An answer, shown while it is made."""

import sys
from dataclasses import dataclass

from osora.cli.output import plain
from osora.streams import GenerationStream


@dataclass(frozen=True)
class Spoken:
    """An answer as far as it came. `finish_reason` is the service's, or `stopped` for one ended by Ctrl-C."""

    text: str
    finish_reason: str
    tokens: int | None


def speak(pieces: GenerationStream, *, quiet: bool = False) -> Spoken:
    """Show an answer piece by piece, unless `quiet`, and return it. Ctrl-C ends it and nothing else.

    Raises OsoraError if it breaks off.
    """
    text = ""
    try:
        for piece in pieces:
            text += piece
            if not quiet:
                sys.stdout.write(plain(piece))
                sys.stdout.flush()
    except KeyboardInterrupt:
        return Spoken(text, "stopped", None)
    finally:
        if not quiet and text:
            sys.stdout.write("\n")
            sys.stdout.flush()
    result = pieces.result or {}
    return Spoken(
        result.get("text", text),
        result.get("finish_reason", "stop"),
        result.get("usage", {}).get("completion_tokens"),
    )
