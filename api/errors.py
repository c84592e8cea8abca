"""From exceptions to the one shape: `{"error": {"message", "type", "param", "code", …}}`."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.schemas import ErrorBody, ErrorDetail
from api.validation import explain
from registry.errors import InvalidFile, InvalidRequest, OsoraError, Unavailable
from registry.outages import DATABASE_OUTAGES, STORE_OUTAGES

logger = logging.getLogger(__name__)

_HEADERS = {
    401: {"www-authenticate": "Bearer"},
    # The openai client repeats a 409 otherwise, and a state does not change by asking again.
    409: {"x-should-retry": "false"},
    503: {"retry-after": "1"},
}
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def install(app: FastAPI) -> None:
    """Gives the app one handler for each family of exceptions."""
    app.exception_handler(OsoraError)(_on_osora_error)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    for of_database in DATABASE_OUTAGES:
        app.exception_handler(of_database)(_on_database_down)
    for of_store in STORE_OUTAGES:
        app.exception_handler(of_store)(_on_store_down)
    app.exception_handler(Exception)(_on_unexpected)


def body_of(error: OsoraError) -> ErrorBody:
    """The error as the API says it."""
    detail = ErrorDetail(
        message=error.message,
        type=error.type,
        param=error.param,
        code=error.code,
        next_action=error.next_action,
    )
    if isinstance(error, InvalidFile):
        detail.line, detail.field = error.line, error.field
    return ErrorBody(error=detail)


def respond(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer; of the keys, only `param` and `code` are there when they have nothing to say."""
    detail = body.error.model_dump()
    shown = {key: value for key, value in detail.items() if value is not None or key in ("param", "code")}
    return JSONResponse({"error": shown}, status, {**_HEADERS.get(status, {}), **(headers or {})})


async def _on_osora_error(request: Request, error: OsoraError) -> JSONResponse:
    return respond(error.status, body_of(error))


async def _on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    return respond(InvalidRequest.status, body_of(explain(error)))


async def _on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    message = str(error.detail)
    if error.status_code in (404, 405):
        message = f"{request.method} {request.url.path} is not a route of this API"
    detail = ErrorDetail(
        message=message,
        type=InvalidRequest.type,
        code=_HTTP_CODES.get(error.status_code, InvalidRequest.code),
        next_action="GET /docs lists the routes" if error.status_code in (404, 405) else None,
    )
    return respond(error.status_code, ErrorBody(error=detail), dict(error.headers or {}))


async def _on_database_down(request: Request, error: Exception) -> JSONResponse:
    logger.error("request %s: the database failed", request.state.request_id, exc_info=error)
    unavailable = Unavailable(
        "the database does not answer", code="database_unavailable", next_action="try again in a moment"
    )
    return respond(unavailable.status, body_of(unavailable))


async def _on_store_down(request: Request, error: Exception) -> JSONResponse:
    logger.error("request %s: the object store failed", request.state.request_id, exc_info=error)
    unavailable = Unavailable(
        "the object store does not take or give this now",
        code="object_store_unavailable",
        next_action="try again in a moment",
    )
    return respond(unavailable.status, body_of(unavailable))


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    # The server logs the traceback; this line says which request it was.
    request_id: str = request.state.request_id
    logger.error("request %s failed: %s", request_id, type(error).__name__)
    detail = ErrorDetail(
        message="something went wrong on our side",
        type=OsoraError.type,
        code="internal_error",
        next_action=f"report it with the request id {request_id}",
    )
    # This handler runs outside of our middleware, which would have added the header.
    return respond(500, ErrorBody(error=detail), {"x-request-id": request_id})
