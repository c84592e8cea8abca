"""OpenAI's API, as far as a move away from it needs: jobs, files, answers. Nothing is changed there."""

import itertools
import os
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote

import httpx

from osora.discovery import check_key, check_url, is_loopback
from osora.errors import OpenAIError, OsoraUsageError
from osora.migrate.pace import Pace
from osora.migrate.text import one_line
from osora.retries import asked_to_wait

DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
_URL_VARIABLE = "OPENAI_BASE_URL"
# As OpenAI's own client reads them.
_HEADERS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
_TIMEOUT = httpx.Timeout(300.0, connect=10.0)
_TRIES = 6
_TRIES_AT_A_LIMIT = 30  # where it says for how long to wait, others may be quicker to take the turn
_PAGE = 100
LONGEST_WAIT_SECONDS = 600.0


def address(given: str | None, osora_url: str) -> str:
    """Where their API is: the argument, then OPENAI_BASE_URL, then OpenAI's own.

    Raises OsoraUsageError for a URL that is none, or that is the service which is moved to.
    """
    url = (given or os.environ.get(_URL_VARIABLE) or DEFAULT_URL).strip().rstrip("/")
    name = "--from" if given else _URL_VARIABLE
    check_url(url, name, DEFAULT_URL)
    here, there = httpx.URL(osora_url), httpx.URL(url)
    is_one_host = here.host == there.host or (is_loopback(osora_url) and is_loopback(url))
    if is_one_host and here.port == there.port:
        raise OsoraUsageError(f"{name} is {_shown(url)}, which is this Osora itself", f"add --from {DEFAULT_URL}")
    return url


class OpenAIClient:
    """A connection to their API. Thread-safe. Every request waits for its turn in `pace`.

    Raises OsoraUsageError for a key that no request can carry or that is Osora's own.
    """

    def __init__(self, url: str, key: str, pace: Pace | None = None) -> None:
        check_key(key, KEY_VARIABLE, "OpenAI")
        if key.startswith("osk-"):
            raise OsoraUsageError(f"{KEY_VARIABLE} holds a key of Osora", "set it to the key of the account to leave")
        self._key = key
        self.url = _shown(url)
        self.pace = pace or Pace()
        headers = {"Authorization": f"Bearer {key}"}
        headers |= {header: os.environ[name] for name, header in _HEADERS.items() if os.environ.get(name)}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=not is_loopback(url))
        self._reached = False

    def close(self) -> None:
        self.pace.stop()
        self._http.close()

    def jobs(self) -> Iterator[dict[str, Any]]:
        """All fine-tuning jobs of the account, newest first."""
        after: str | None = None
        while True:
            params = {"limit": _PAGE} | ({"after": after} if after else {})
            page = self.request("GET", "/fine_tuning/jobs", params=params)
            data = page.get("data") if isinstance(page, dict) else None
            if not isinstance(data, list) or not all(isinstance(job, dict) and job.get("id") for job in data):
                raise self._stranger()
            yield from data
            if not page.get("has_more") or not data or data[-1]["id"] == after:
                return
            after = data[-1]["id"]

    def file(self, file_id: str) -> dict[str, Any]:
        """What is known of a file."""
        found = self.request("GET", f"/files/{quote(file_id, safe='')}")
        if not isinstance(found, dict):
            raise self._stranger()
        return found

    def download(self, file_id: str, out: IO[bytes], size: int | None) -> None:
        """Write a file's bytes, piece by piece. `size`: how many there must be, if that is known.

        What breaks off is begun again. Raises OpenAIError, also where it is not of this size.
        """
        for tried in itertools.count(1):
            out.seek(0)
            out.truncate()
            self.pace.wait()
            try:
                # The bytes may lie elsewhere; httpx sends the key to no other host.
                path = f"/files/{quote(file_id, safe='')}/content"
                with self._http.stream("GET", path, follow_redirects=True) as response:
                    if not response.is_success:
                        response.read()
                        self._hold_or_raise(response, tried)
                        continue
                    for piece in response.iter_bytes():
                        out.write(piece)
                        if size is not None and out.tell() > size:
                            break
            except httpx.RequestError as error:
                self._hold_unreached(error, tried)
                continue
            if size is not None and out.tell() != size:
                raise OpenAIError(f"File {file_id} has not the {size} bytes that {self.url} says it has", status=502)
            return

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """The decoded JSON answer. What may pass is tried again, at the pace that is asked for."""
        for tried in itertools.count(1):
            self.pace.wait()
            try:
                response = self._http.request(method, path, **kwargs)
            except httpx.RequestError as error:
                self._hold_unreached(error, tried)
                continue
            self._reached = True
            if response.is_success:
                try:
                    return response.json()
                except ValueError:
                    raise self._stranger() from None
            self._hold_or_raise(response, tried)
        raise AssertionError("the last try raises")

    def _hold_unreached(self, error: httpx.RequestError, tried: int) -> None:
        # An address that never answered is likelier wrong than busy.
        if tried == _TRIES or not self._reached:
            reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
            message = f"Cannot reach {self.url}: {self._clean(reason) or type(error).__name__}"
            raise OpenAIError(message, next_action="see whether --from or OPENAI_BASE_URL is right, and run it again")
        self.pace.hold(_backoff(tried))

    def _hold_or_raise(self, response: httpx.Response, tried: int) -> None:
        error = self._error(response)
        passing = response.status_code in (408, 409, 429) or response.status_code >= 500
        asked = asked_to_wait(response.headers)
        tries = _TRIES_AT_A_LIMIT if response.status_code == 429 and asked is not None else _TRIES
        if not passing or error.code == "insufficient_quota" or tried >= tries:
            raise error
        if asked is not None and asked > LONGEST_WAIT_SECONDS:
            error.next_action = f"it asks to wait {round(asked / 60)} minutes: run it again then, it goes on"
            raise error
        self.pace.hold(_backoff(tried) if asked is None else asked)

    def _error(self, response: httpx.Response) -> OpenAIError:
        status = response.status_code
        if status == 401:  # their sentence repeats the key
            message = f"{self.url} does not take this key (HTTP 401)"
            return OpenAIError(message, status=401, next_action=f"set {KEY_VARIABLE} to a key of the account to leave")
        try:
            said = response.json()["error"]
            message, code = str(said["message"]), said.get("code") or said.get("type")
        except (ValueError, KeyError, TypeError, AttributeError):
            message, code = response.reason_phrase, None
        sentence = self._clean(message).rstrip(".")
        return OpenAIError(f"{self.url} says: {sentence} (HTTP {status})", status=status, code=code, said=sentence)

    def _stranger(self) -> OpenAIError:
        return OpenAIError(
            f"What answers at {self.url} does not speak OpenAI's API",
            status=502,
            next_action=f"the address ends in /v1: --from {DEFAULT_URL}",
        )

    def _clean(self, text: str) -> str:
        """On one line, and without the key."""
        return one_line(text.replace(self._key, "…"), 500)


def _backoff(tried: int) -> float:
    return float(0.25 * 2**tried)


def _shown(url: str) -> str:
    """Without a name and a password."""
    return str(httpx.URL(url).copy_with(userinfo=b""))
