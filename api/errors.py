"""From exceptions to the one shape: `{"error": {"message", "type", "param", "code", …}}`."""

import logging
from collections.abc import Iterator
from dataclasses import asdict

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from api.anthropic import errors as anthropic
from api.idempotency import Replay, on_replay
from api.schemas import ErrorBody, ErrorDetail, FileProblem
from api.validation import cut, explain, printable
from osora_common.disconnect import CLIENT_GONE
from registry.columns import UnstorableText, is_storable
from registry.errors import InvalidFile, InvalidRequest, OsoraError, StorageFull, Unavailable
from registry.outages import DATABASE_OUTAGES, STORE_OUTAGES, is_disk_full

logger = logging.getLogger(__name__)

_HEADERS = {
    401: {"www-authenticate": "Bearer"},
    # The openai client repeats a 409 otherwise, and a state does not change by asking again.
    409: {"x-should-retry": "false"},
    429: {"retry-after": "1"},
    503: {"retry-after": "1"},
}
_LONGEST_TEXT = 2000
_HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    429: "too_many_bodies",
    503: "too_many_bodies",
}
_HTTP_TYPES = {429: "rate_limit_error", 503: Unavailable.type}
_NEXT_ACTIONS = {
    404: "GET /docs lists the routes",
    405: "GET /docs lists the routes",
    408: "send it again, faster, or in smaller parts",
    413: "send less: rows go into a file, in parts if need be, and whoever runs the service can raise "
    "OSORA_MAX_UPLOAD_BYTES",
    429: "wait for the answers to what was sent, and send it again",
    503: "send it again in a moment",
}


def install(app: FastAPI) -> None:
    """Gives the app one handler for each family of exceptions."""
    app.exception_handler(OsoraError)(_on_osora_error)
    app.exception_handler(Replay)(on_replay)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    for of_database in DATABASE_OUTAGES:
        app.exception_handler(of_database)(_on_database_down)
    for of_store in STORE_OUTAGES:
        app.exception_handler(of_store)(_on_store_down)
    app.exception_handler(OSError)(_on_os_error)
    app.exception_handler(ClientDisconnect)(_on_disconnect)
    app.exception_handler(Exception)(_on_unexpected)


async def answer(request: Request, error: Exception) -> Response:
    """The answer to any exception, by the handler of its class."""
    handlers = request.app.exception_handlers
    handle = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    try:
        response: Response = await handle(request, error)
    except Exception as unforeseen:  # an OSError that is no full disk, say
        return await _on_unexpected(request, unforeseen)
    return response


def body_of(error: OsoraError) -> ErrorBody:
    """The error as the API says it."""
    # What a client sent may be quoted in it, at any length and with what UTF-8 cannot carry.
    detail = ErrorDetail(
        message=_readable(error.message),
        type=error.type,
        param=error.param,
        code=error.code,
        next_action=error.next_action and _readable(error.next_action),
    )
    if isinstance(error, InvalidFile):
        detail.line, detail.field = error.line, error.field
        if error.problem_count:
            detail.problems = [FileProblem(**asdict(problem)) for problem in error.problems]
            detail.problem_count = error.problem_count
    return ErrorBody(error=detail)


def respond(request: Request, status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer; of the keys, only `param` and `code` are there when they have nothing to say."""
    detail = body.error.model_dump()
    shown = {key: value for key, value in detail.items() if value is not None or key in ("param", "code")}
    content = anthropic.shaped(shown, status) if anthropic.speaks(request.url.path) else {"error": shown}
    return JSONResponse(content, status, {**_HEADERS.get(status, {}), **(headers or {})})


async def _on_osora_error(request: Request, error: OsoraError) -> JSONResponse:
    if isinstance(error, UnstorableText) and error.param is None:
        # Of a body or a query the field is named before it comes to that; what is left is the path.
        error.param = next((name for name, value in request.path_params.items() if not is_storable(value)), None)
    return respond(request, error.status, body_of(error))


async def _on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    return respond(request, InvalidRequest.status, body_of(explain(error)))


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    if isinstance(error.__cause__, OsoraError):  # FastAPI wraps what reading a body raises
        return await _on_osora_error(request, error.__cause__)
    headers = error.headers
    message = str(error.detail)
    if error.status_code == 404:
        message = f"{request.method} {request.url.path} is not a route of this API{_at_the_other_door(request)}"
    if error.status_code == 405:
        allowed = _allowed_methods(request)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allowed})
        message = f"{request.method} is not possible on {request.url.path}, only {allowed}"
        headers = {"allow": allowed}
    detail = ErrorDetail(
        message=_readable(message),
        type=_HTTP_TYPES.get(error.status_code, InvalidRequest.type),
        code=_HTTP_CODES.get(error.status_code, InvalidRequest.code),
        next_action=_NEXT_ACTIONS.get(error.status_code),
    )
    return respond(request, error.status_code, ErrorBody(error=detail), dict(headers or {}))


def _at_the_other_door(request: Request) -> str:
    """For clients whose base_url lacks the `/v1`, or has one too many: many of them show nothing but the message."""
    path = request.url.path
    for other in (f"/v1{path}", path.removeprefix("/v1")):
        there = [route for route in _routes_at(request, other) if route.include_in_schema]
        if other != path and any(request.method in (route.methods or ()) for route in there):
            return f", but {other} is: see whether the client's base_url is to end with /v1"
    return ""


def _allowed_methods(request: Request) -> str:
    """All of the path: a route that has the path and not the method knows only its own."""
    found = {method for route in _routes_at(request, request.url.path) for method in route.methods or ()}
    return ", ".join(sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set())))


def _routes_at(request: Request, path: str) -> Iterator[Route]:
    for prefix, router in (("", request.app.router), *request.app.state.routers):
        for route in router.routes if path.startswith(prefix) else ():
            if isinstance(route, Route) and route.path_regex.match(path.removeprefix(prefix)):
                yield route


async def _on_database_down(request: Request, error: Exception) -> JSONResponse:
    return _on_outage(request, error, "database", "the database does not answer")


async def _on_store_down(request: Request, error: Exception) -> JSONResponse:
    return _on_outage(request, error, "object_store", "the object store does not take or give this now")


async def _on_os_error(request: Request, error: OSError) -> JSONResponse:
    if not is_disk_full(error):
        raise error
    return _on_outage(request, error, "temporary_files", "")


async def _on_disconnect(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=CLIENT_GONE)  # nobody reads it


def _on_outage(request: Request, error: Exception, what: str, message: str) -> JSONResponse:
    logger.error("request %s: %s failed", request.state.request_id, what, exc_info=error)
    answer: OsoraError
    if is_disk_full(error):
        answer = StorageFull(
            "a disk of the service is full: nothing was changed",
            next_action="tell whoever runs the service; deleting files and adapters makes room",
        )
    else:
        answer = Unavailable(message, code=f"{what}_unavailable", next_action="try again in a moment")
    return respond(request, answer.status, body_of(answer))


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id: str = request.state.request_id
    logger.error("request %s failed: %s", request_id, type(error).__name__, exc_info=error)
    detail = ErrorDetail(
        message="something went wrong on our side",
        type=OsoraError.type,
        code="internal_error",
        next_action=f"report it with the request id {request_id}",
    )
    return respond(request, 500, ErrorBody(error=detail))


def _readable(text: str) -> str:
    return printable(cut(text, _LONGEST_TEXT))
