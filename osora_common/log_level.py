"""Which words `OSORA_LOG_LEVEL` may have."""

from typing import Annotated

from pydantic import AfterValidator

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _known(value: str) -> str:
    if value.upper() not in _LEVELS:
        raise ValueError(f"{value!r} is none of {', '.join(_LEVELS)}")
    return value


LogLevel = Annotated[str, AfterValidator(_known)]
"""How much a program logs, in any case of letters."""
