"""HTTP for the SDK: one connection pool, one place where failures become the SDK's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from osora.discovery import Target
from osora.errors import OsoraAPIError, OsoraConnectionError, OsoraUsageError

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
        except httpx.RequestError as error:
            raise self.unreachable(error) from error
        except UnicodeEncodeError as error:
            raise _not_unicode(error) from error
        if response.status_code not in accept:
            raise_for_error(response)
        try:
            return response.json()
        except ValueError as error:
            raise not_osora(response) from error

    @contextmanager
    def stream(self, method: str, path: str, **kwargs: Any) -> Iterator[httpx.Response]:
        """The response, its body still to be read. Transport failures while reading raise as well."""
        began = False
        try:
            with self.http.stream(method, path, **kwargs) as response:
                if not response.is_success:
                    response.read()
                raise_for_error(response)
                began = True
                yield response
        except httpx.RequestError as error:
            raise self.unreachable(error, interrupted=began) from error
        except UnicodeEncodeError as error:
            if began:  # the reader's own
                raise
            raise _not_unicode(error) from error

    def unreachable(self, error: httpx.RequestError, *, interrupted: bool = False) -> OsoraConnectionError:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
        return OsoraConnectionError(self.target.url, reason or type(error).__name__, interrupted=interrupted)


def raise_for_error(response: httpx.Response) -> None:
    """Raise `OsoraAPIError` unless the status is 2xx. The body must have been read."""
    if response.is_success:
        return
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if not isinstance(error, dict):
        raise not_osora(response)
    raise error_from(response.status_code, error, response.headers.get("x-request-id"))


def not_osora(response: httpx.Response) -> OsoraAPIError:
    """The exception for an answer that Osora does not give: a proxy's page, or another server altogether."""
    said = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    return OsoraAPIError(
        response.status_code,
        f"What answers at {response.url.scheme}://{response.url.netloc.decode()} is not Osora ({said})",
        code="not_osora",
        next_action="set OSORA_URL to where Osora runs; if a proxy stands before it, see what that has logged",
    )


def _not_unicode(error: UnicodeEncodeError) -> OsoraUsageError:
    message = f"Character {error.start + 1} of a text to be sent is not Unicode"
    return OsoraUsageError(message, "send text in UTF-8 (`locale` says what your terminal sends)")


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
    return quote(value, safe=":", errors="replace")
