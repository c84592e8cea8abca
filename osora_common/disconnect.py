"""Work for an HTTP client that ends when the client leaves."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.requests import Request

Result = TypeVar("Result")

CLIENT_GONE = 499
"""The status of an answer that nobody reads any more, as nginx has it."""


async def unless_gone(request: Request, work: Callable[[], Awaitable[Result]]) -> Result | None:
    """The work's result; None, with the work cancelled, if the client disconnects first.

    The request's body must have been read. Raises what the work raises.
    """
    result: Result | None = None
    failure: Exception | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            result = await work()
        except Exception as error:  # raised below, so that the group does not wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result
