"""Both clients, with a service that is a function."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from tests.support.clients import MODES, Client, Handler, client


class Connect(Protocol):
    def __call__(self, handler: Handler, **settings: Any) -> Client: ...


@pytest.fixture(params=MODES)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client, of each mode in turn, of a service that a function plays."""
    with ExitStack() as stack:

        def make(handler: Handler, **settings: Any) -> Client:
            return stack.enter_context(client(request.param, handler=handler, **settings))

        yield make
