"""What a log tells of an exception."""

import io
import logging
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from uvicorn.logging import DefaultFormatter

from osora_common.log_records import leave_out_values, told

SECRET = "what the client sent"


class Number(BaseModel):
    value: int


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    before = logging.getLogRecordFactory()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(DefaultFormatter())  # as uvicorn has it, to stand for any
    logging.getLogger("somebody").addHandler(handler)
    leave_out_values()
    yield stream
    logging.getLogger("somebody").removeHandler(handler)
    logging.setLogRecordFactory(before)


def test_no_values_of_any_link_of_a_chain(logged: io.StringIO) -> None:
    try:
        try:
            Number(value=SECRET)  # type: ignore[arg-type]
        except ValueError as error:
            raise KeyError(SECRET) from ExceptionGroup(SECRET, [error, UserWarning(SECRET)])
    except KeyError:
        logging.getLogger("somebody").exception("request %s failed", "req-1")
    text = logged.getvalue()
    assert SECRET not in text
    assert "request req-1 failed" in text
    for part in ("pydantic_core", "ValidationError", "KeyError", "ExceptionGroup", "UserWarning", __file__):
        assert part in text


def test_what_comes_from_below_is_told() -> None:
    assert told(OSError(28, "No space left on device")).endswith("OSError: [Errno 28] No space left on device")
    assert told(RuntimeError("first\nsecond")).endswith("RuntimeError: first")


def test_a_circle_ends() -> None:
    first, second = ValueError(SECRET), ValueError(SECRET)
    first.__context__, second.__context__ = second, first
    assert told(first).count("ValueError") == 2
