"""Errors with a status, in the one shape that the whole product uses."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from osora_common.failures import FailureMiddleware
from osora_core.errors import CorruptArtifact, IdentityMismatch, OsoraCoreError, UnknownBase, UserError

logger = logging.getLogger(__name__)


class ServerError(Exception):
    """An error of the server itself, with its HTTP status and the kind of error it is."""

    def __init__(
        self,
        status: int,
        type: str,
        code: str,
        message: str,
        *,
        next_action: str | None = None,
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body(message, type, code, next_action=next_action)
        self.headers = {"retry-after": str(retry_after)} if retry_after else {}


def body(
    message: str, type: str, code: str, *, param: str | None = None, next_action: str | None = None
) -> dict[str, Any]:
    """The error shape. What is no character is shown as its code: an answer could not be sent with it."""
    error = {"message": message, "type": type, "param": param, "code": code, "next_action": next_action}
    return {
        "error": {
            name: value if value is None else value.encode(errors="backslashreplace").decode()
            for name, value in error.items()
            if value is not None or name == "param"
        }
    }


def describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body of an error; what is not ours is a bare 500 that gives nothing away."""
    match error:
        case ServerError():
            return error.status, error.body
        case UnknownBase():
            status, type = 404, "invalid_request_error"
        case UserError():
            status, type = 400, "invalid_request_error"
        case IdentityMismatch():
            status, type = 409, "conflict_error"
        case CorruptArtifact():
            status, type = 502, "server_error"
        case OsoraCoreError():
            status, type = 500, "server_error"
        case _:
            return 500, body("the inference server failed; its log says why", "server_error", "internal_error")
    return status, body(error.message, type, error.code, param=error.param, next_action=error.next_action)


def install(app: FastAPI) -> None:
    """Answer every error in the one shape."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        status, content = describe(error)
        headers = error.headers if isinstance(error, ServerError) else {}
        return JSONResponse(content, status, headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse(
            body(f"{param}: {first['msg']}", "invalid_request_error", "invalid_request", param=param), 400
        )

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        content = body(str(error.detail), "invalid_request_error", "invalid_request")
        return JSONResponse(content, error.status_code, error.headers)

    app.add_exception_handler(ServerError, known)
    app.add_exception_handler(OsoraCoreError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_middleware(FailureMiddleware, answer=_unexpected)


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    logger.error("a request failed", exc_info=error)
    status, content = describe(error)
    return JSONResponse(content, status)
