"""Tracebacks in logs without the values that were at hand.

The message of an exception may hold what a client sent: pydantic quotes the input, a driver its statement's parameters,
a KeyError its key. Prompts, training rows and secrets belong in no log, so only those messages are written that come
from below: of the system, of drivers, of torch. Of all others the log has the type and the place.
"""

import logging
import traceback
from collections.abc import Iterator
from typing import Any

_TOLD = (OSError, MemoryError, RuntimeError, ImportError)
_TOLD_OF = {"sqlalchemy", "psycopg", "sqlite3", "redis", "kombu", "obstore", "httpx", "httpcore", "torch"}
_LONGEST = 300


def leave_out_values() -> None:
    """From now on every log record of this process has its exceptions told by `told`, whoever formats it."""
    make = logging.getLogRecordFactory()

    def make_told(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = told(record.exc_info[1])  # formatters take what is there
        return record

    logging.setLogRecordFactory(make_told)


def told(error: BaseException) -> str:
    """A traceback as Python writes it, with the messages left out that may hold somebody's data."""
    return "\n\nthen, while that was handled:\n\n".join(_one(link) for link in reversed([*_chain(error)]))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it came from, and so on: each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _one(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    is_told = isinstance(error, _TOLD) or kind.__module__.partition(".")[0] in _TOLD_OF
    message = str(error).partition("\n")[0][:_LONGEST] if is_told else ""
    inner = [_one(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    lines = [f"Traceback (most recent call last):\n{frames}{name}{f': {message}' if message else ''}", *inner]
    return "\n\nof these:\n\n".join(lines)
