"""Errors as Anthropic shapes them."""

from typing import Any

PATH = "/v1/messages"

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def speaks(path: str) -> bool:
    """Whether errors of this path have this shape."""
    return path == PATH or path.startswith(f"{PATH}/")


def shaped(error: dict[str, Any], status: int) -> dict[str, Any]:
    """The body for the inside of our own: what Anthropic has no name for stays beside it."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    others = {name: value for name, value in error.items() if name not in ("type", "message", "code")}
    details = {"error_code": error["code"]} if error.get("code") else None
    return {"type": "error", "error": {"type": kind, "message": error["message"], "details": details, **others}}
