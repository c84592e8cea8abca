"""Routes that wait for the database, each on one thread from its first query to its answer's last byte.

FastAPI goes to a thread and back for the beginning of a session, for the route's function, for the check of its answer
and for the end of the session: four times a request, and each time behind whoever has the interpreter.
"""

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from api.services import Services

_Function = Callable[..., Any]
_SESSION, _REQUEST = "session", "request"


class ThreadRoute(APIRoute):
    """A route that carries out a function that is not async, and all that belongs to it, on one thread.

    The function's parameter `session` is the session that is committed when it returns, and rolled back if it raises.
    Of a tenant's requests to read, a few are carried out at once.
    """

    def __init__(self, path: str, endpoint: _Function, **options: Any) -> None:
        is_async = inspect.iscoroutinefunction(endpoint)
        self._only_reads = not is_async and _SESSION in inspect.signature(endpoint).parameters
        super().__init__(path, endpoint if is_async else self._on_a_thread(endpoint), **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, which waits for its tenant's turn before it does anything."""
        handle = super().get_route_handler()

        async def handle_in_turn(request: Request) -> Response:
            services: Services = request.app.state.services
            async with services.lanes.of(request.state.principal.tenant_id):
                return await handle(request)

        return handle_in_turn if self._only_reads and self.methods == {"GET"} else handle

    def _on_a_thread(self, function: _Function) -> Callable[..., Coroutine[Any, Any, Response]]:
        signature = inspect.signature(function, eval_str=True)
        takes_request = _REQUEST in signature.parameters

        @wraps(function)
        async def run(request: Request, **values: Any) -> Response:
            if takes_request:
                values[_REQUEST] = request
            return await run_in_threadpool(self._answer, function, values)

        if not takes_request:
            added = inspect.Parameter(_REQUEST, inspect.Parameter.KEYWORD_ONLY, annotation=Request)
            signature = signature.replace(parameters=[*signature.parameters.values(), added])
        run.__signature__ = signature  # type: ignore[attr-defined]  # FastAPI reads it
        return run

    def _answer(self, function: _Function, values: dict[str, Any]) -> Response:
        session = values.get(_SESSION)
        if session is None:
            return self._response(function(**values))
        with session, session.begin():
            return self._response(function(**values))  # what cannot be said is not committed

    def _response(self, result: Any) -> Response:
        if isinstance(result, Response):
            return result
        # mypy has checked that it is what the route says.
        content = self.response_field.serialize_json(result) if self.response_field is not None else b"null"
        return Response(content, media_type="application/json")
