"""What becomes of one call's attempts, the same for both transports: an answer, another attempt, or an error."""

from typing import Any, TypeVar

import httpx

from osora.discovery import Target
from osora.errors import OsoraAPIError, OsoraConnectionError
from osora.retries import NOT_DONE, asked_to_wait, backoff, delay, is_worth_it
from osora.sdk.call import Call

T = TypeVar("T")

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
# Not those whose reason is this side's, nor silence: its time is what the caller was ready to wait.
_PASSING = (*_NEVER_SENT, httpx.NetworkError, httpx.RemoteProtocolError, httpx.WriteTimeout, httpx.ProxyError)


class Attempts:
    """The attempts at one call so far."""

    def __init__(self, call: Call[Any], target: Target, max_retries: int) -> None:
        self._call = call
        self._target = target
        self._left = max_retries if call.retries else 0
        self._number = 0
        self._perhaps_done = False

    def accepts(self, response: httpx.Response) -> bool:
        """Whether it is an answer. What is gone already when it is deleted a second time went the first time."""
        gone = self._perhaps_done and self._call.method == "DELETE" and response.status_code == 404
        return response.is_success or response.status_code in self._call.accept or gone

    def after_failure(self, error: httpx.RequestError, *, began: bool = False) -> float:
        """Seconds until the next attempt. Raises `OsoraConnectionError` if there is none."""
        sent = not isinstance(error, _NEVER_SENT)
        # On this machine nothing gets lost on the way: what was not there just now either is not running.
        if self._target.is_local and self._number == 0 and not sent:
            self._left = 0
        if not isinstance(error, _PASSING) or not self._again(perhaps_done=sent):
            raise self.unreachable(error, began=began) from error
        return backoff(self._number - 1)

    def after_refusal(self, response: httpx.Response) -> float:
        """Seconds until the next attempt. Raises `OsoraAPIError` if there is none."""
        seconds = delay(self._number, response.headers) if is_worth_it(response) else None
        if seconds is None or not self._again(perhaps_done=response.status_code not in NOT_DONE):
            raise error_of(response)
        return seconds

    def unreachable(self, error: httpx.RequestError, *, began: bool = False) -> OsoraConnectionError:
        reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
        return OsoraConnectionError(self._target.url, reason or type(error).__name__, interrupted=began)

    def _again(self, *, perhaps_done: bool) -> bool:
        if self._left == 0 or (perhaps_done and not self._call.repeatable):
            return False
        self._left -= 1
        self._number += 1
        self._perhaps_done |= perhaps_done
        return True


def parsed(call: Call[T], response: httpx.Response) -> T:
    """What the answer says. Raises `OsoraAPIError` if it is not one of Osora's."""
    try:
        return call.parse(response)
    except ValueError as error:
        raise not_osora(response) from error


def error_of(response: httpx.Response) -> OsoraAPIError:
    """The exception for an answer that is an error. The body must have been read."""
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if not isinstance(error, dict):
        return not_osora(response)
    return error_from(response, error)


def not_osora(response: httpx.Response) -> OsoraAPIError:
    """The exception for an answer that Osora does not give: a proxy's page, or another server altogether."""
    said = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    return OsoraAPIError(
        response.status_code,
        f"What answers at {response.url.scheme}://{response.url.netloc.decode()} is not Osora ({said})",
        code="not_osora",
        next_action="set OSORA_URL to where Osora runs; if a proxy stands before it, see what that has logged",
    )


def error_from(response: httpx.Response, error: dict[str, Any]) -> OsoraAPIError:
    """The exception for the service's error object."""
    return OsoraAPIError(
        response.status_code,
        str(error.get("message", "")),
        code=error.get("code"),
        param=error.get("param"),
        line=error.get("line"),
        field=error.get("field"),
        problems=error.get("problems"),
        problem_count=error.get("problem_count"),
        next_action=error.get("next_action"),
        request_id=response.headers.get("x-request-id"),
        retry_after=asked_to_wait(response.headers),
    )
