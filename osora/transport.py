"""HTTP for the SDK: one connection pool, one place where failures become the SDK's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from osora.discovery import Target
from osora.errors import OsoraAPIError, OsoraConnectionError

# An upload is answered after the whole file was validated, a generation after the last token.
TIMEOUT = httpx.Timeout(600.0, connect=5.0)


class Transport:
    """A connection pool to one service. Thread-safe."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
        # A proxy configured for the internet has no way to this machine's own ports.
        self.http = httpx.Client(base_url=target.url, headers=headers, timeout=TIMEOUT, trust_env=not target.is_local)

    def close(self) -> None:
        self.http.close()

    def request(self, method: str, path: str, *, accept: tuple[int, ...] = (), **kwargs: Any) -> Any:
        """The decoded JSON answer. A status outside 2xx raises, unless `accept` names it."""
        try:
            response = self.http.request(method, path, **kwargs)
        except httpx.TransportError as error:
            raise self.unreachable(error) from error
        if response.status_code not in accept:
            raise_for_error(response)
        try:
            return response.json()
        except ValueError as error:
            raise OsoraConnectionError(self.target.url, "the answer is not JSON; is this Osora?") from error

    @contextmanager
    def stream(self, method: str, path: str, **kwargs: Any) -> Iterator[httpx.Response]:
        """The response, its body still to be read. Transport failures while reading raise as well."""
        try:
            with self.http.stream(method, path, **kwargs) as response:
                if not response.is_success:
                    response.read()
                raise_for_error(response)
                yield response
        except httpx.TransportError as error:
            raise self.unreachable(error) from error

    def unreachable(self, error: httpx.TransportError) -> OsoraConnectionError:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
        return OsoraConnectionError(self.target.url, reason or type(error).__name__)


def raise_for_error(response: httpx.Response) -> None:
    """Raise `OsoraAPIError` unless the status is 2xx. The body must have been read."""
    if response.is_success:
        return
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if not isinstance(error, dict):  # a proxy's page, or not Osora at all
        error = {"message": response.reason_phrase or "The service answered with an error"}
    raise error_from(response.status_code, error, response.headers.get("x-request-id"))


def error_from(status: int, error: dict[str, Any], request_id: str | None = None) -> OsoraAPIError:
    """The exception for the service's error object."""
    return OsoraAPIError(
        status,
        str(error.get("message", "")),
        code=error.get("code"),
        param=error.get("param"),
        line=error.get("line"),
        next_action=error.get("next_action"),
        request_id=request_id,
    )


def segment(value: str) -> str:
    """An id or a model name as one path segment (a name's `:` stays, its `/` must not split the path)."""
    return quote(value, safe=":")
