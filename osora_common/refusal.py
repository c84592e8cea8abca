"""How our programs end when they were told to do what cannot be done: one sentence and a status of its own."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_settings import SettingsError

from osora_common.private_files import DataDirError

_SECRET = ("secret", "token", "key", "url", "options", "store")
"""Parts of names of settings whose values are not shown: they hold passwords, or may."""


@contextmanager
def refusing(*refusals: type[Exception]) -> Iterator[None]:
    """End the process with `os.EX_CONFIG` on settings that are wrong, and on `refusals` (an error's `next_action` is
    shown with it): the last line on the standard error stream is the reason. Whoever supervises it need not try again.
    """
    all_of_them: tuple[type[Exception], ...] = (ValidationError, SettingsError, DataDirError, *refusals)
    try:
        yield
    except all_of_them as error:
        print(_sentence(error), file=sys.stderr, flush=True)
        sys.exit(os.EX_CONFIG)


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return _of_settings(error)
    if isinstance(error, SettingsError) and (field := re.search(r'field "(\w+)"', str(error))):
        return f"OSORA_{field[1].upper()} is not JSON."
    message = " ".join(str(error).split()).rstrip(".")
    next_action = getattr(error, "next_action", None)
    return f"{message}. Next: {next_action.rstrip('.')}." if next_action else f"{message}."


def _of_settings(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    what = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:  # of several settings together: the message names them
        return f"{what.rstrip('.')}."
    name = f"OSORA_{str(first['loc'][0]).upper()}"
    if first["type"] == "value_error" or any(part in name.lower() for part in _SECRET):
        return f"{name}: {what.rstrip('.')}."  # our own words, which name the value where it may be shown
    return f"{name} is {str(first['input'])!r}: it {what.rstrip('.')}."
