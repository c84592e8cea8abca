"""HTTP for the SDK: a connection pool, and one place where failures become the SDK's errors.

Two transports, one for threads and one for an event loop, which differ in nothing but `await`; what they decide is in
`osora.sdk.attempts`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx

from osora.discovery import Target
from osora.errors import OsoraUsageError
from osora.sdk.attempts import Attempts, parsed
from osora.sdk.call import Call, Each, Steps, Work

T = TypeVar("T")

# An upload is answered after the whole file was validated, a generation after the last token.
_CONNECT_SECONDS = 5.0
TIMEOUT = httpx.Timeout(600.0, connect=_CONNECT_SECONDS)


def timeout_of(asked: float | httpx.Timeout | None) -> httpx.Timeout | None:
    """None: what the HTTP client has of its own."""
    if asked is None or isinstance(asked, httpx.Timeout):
        return asked
    return httpx.Timeout(asked, connect=min(asked, _CONNECT_SECONDS))


class _Settings:
    """What both have: where to, how often, how long."""

    def __init__(self, target: Target, max_retries: int, timeout: httpx.Timeout | None) -> None:
        self.target = target
        self.max_retries = max_retries
        self.timeout = timeout

    def _pool(self) -> dict[str, Any]:
        # A proxy configured for the internet has no way to this machine's own ports.
        return {"timeout": TIMEOUT, "trust_env": not self.target.is_local}

    def _request(self, http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
        """Raises `OsoraUsageError` for text that cannot be sent."""
        headers = {"authorization": f"Bearer {self.target.key}"} if self.target.key else {}
        sent: dict[str, Any] = {"headers": headers | dict(call.headers or {}), "params": call.params}
        if call.json is not None:
            sent["json"] = call.json
        if call.form is not None:
            form = call.form()
            name, file_name, stream = form.file
            sent |= {"data": form.fields, "files": {name: (file_name, stream)}}
        if timeout := call.timeout or self.timeout:
            sent["timeout"] = timeout
        try:
            return http.build_request(call.method, self.target.url + call.path, **sent)
        except UnicodeEncodeError as error:
            message = f"Character {error.start + 1} of a text to be sent is not Unicode"
            next_action = "send text in UTF-8 (`locale` says what your terminal sends)"
            raise OsoraUsageError(message, next_action) from error

    def attempts(self, call: Call[Any]) -> Attempts:
        return Attempts(call, self.target, self.max_retries)


class Transport(_Settings):
    """A connection pool to one service. Thread-safe. `http`: one that somebody else closes."""

    def __init__(
        self, target: Target, max_retries: int, timeout: httpx.Timeout | None, http: httpx.Client | None = None
    ) -> None:
        super().__init__(target, max_retries, timeout)
        self.http = http or httpx.Client(**self._pool())
        self._is_ours = http is None
        self.sleep: Callable[[float], None] = time.sleep

    def close(self) -> None:
        if self._is_ours:
            self.http.close()

    def carry_out(self, asked: Call[T] | Steps[T]) -> T:
        """The call's answer, or what the steps come to."""
        if isinstance(asked, Call):
            return self.send(asked)
        try:
            step = next(asked)
            while True:
                try:
                    result = self._take(step)
                except BaseException as error:
                    step = asked.throw(error)
                else:
                    step = asked.send(result)
        except StopIteration as ended:
            value: T = ended.value
            return value

    def _take(self, step: Call[Any] | Work | Each) -> Any:
        if isinstance(step, Call):
            return self.send(step)
        if isinstance(step, Work):
            return step.do()
        for item in step.stream.sync(self):
            step.then(item)

    def send(self, call: Call[T]) -> T:
        """The answer, read. Raises `OsoraError`s."""
        attempts = self.attempts(call)
        while True:
            response = self._open(call, attempts)
            try:
                if call.into is None:
                    if not call.only_head:
                        response.read()
                else:
                    take = call.into(response)
                    for piece in response.iter_bytes():
                        take(piece)
            except httpx.RequestError as error:
                delay = attempts.after_failure(error, began=True)
            else:
                return parsed(call, response)
            finally:
                response.close()
            self.sleep(delay)

    @contextmanager
    def stream(self, call: Call[Any]) -> Iterator[httpx.Response]:
        """The answer, its body still to be read. Failures while it is read raise `OsoraError`s as well."""
        attempts = self.attempts(call)
        response = self._open(call, attempts)
        try:
            yield response
        except httpx.RequestError as error:
            raise attempts.unreachable(error, began=True) from error
        finally:
            response.close()

    def _open(self, call: Call[Any], attempts: Attempts) -> httpx.Response:
        while True:
            request = self._request(self.http, call)
            try:
                response = self.http.send(request, stream=True)
                if attempts.accepts(response):
                    return response
                response.read()
            except httpx.RequestError as error:
                delay = attempts.after_failure(error)
            else:
                delay = attempts.after_refusal(response)
            self.sleep(delay)


class AsyncTransport(_Settings):
    """A connection pool to one service, for one event loop. `http`: one that somebody else closes."""

    def __init__(
        self, target: Target, max_retries: int, timeout: httpx.Timeout | None, http: httpx.AsyncClient | None = None
    ) -> None:
        super().__init__(target, max_retries, timeout)
        self.http = http or httpx.AsyncClient(**self._pool())
        self._is_ours = http is None
        self.sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep

    async def aclose(self) -> None:
        if self._is_ours:
            await self.http.aclose()

    async def carry_out(self, asked: Call[T] | Steps[T]) -> T:
        """The call's answer, or what the steps come to."""
        if isinstance(asked, Call):
            return await self.send(asked)
        try:
            step = next(asked)
            while True:
                try:
                    result = await self._take(step)
                except BaseException as error:
                    step = asked.throw(error)
                else:
                    step = asked.send(result)
        except StopIteration as ended:
            value: T = ended.value
            return value

    async def _take(self, step: Call[Any] | Work | Each) -> Any:
        if isinstance(step, Call):
            return await self.send(step)
        if isinstance(step, Work):
            return await asyncio.to_thread(step.do)
        async for item in step.stream.asynchronous(self):
            step.then(item)

    async def send(self, call: Call[T]) -> T:
        """The answer, read. Raises `OsoraError`s."""
        attempts = self.attempts(call)
        while True:
            response = await self._open(call, attempts)
            try:
                if call.into is None:
                    if not call.only_head:
                        await response.aread()
                else:
                    take = call.into(response)
                    async for piece in response.aiter_bytes():
                        take(piece)
            except httpx.RequestError as error:
                delay = attempts.after_failure(error, began=True)
            else:
                return parsed(call, response)
            finally:
                await response.aclose()
            await self.sleep(delay)

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        """The answer, its body still to be read. Failures while it is read raise `OsoraError`s as well."""
        attempts = self.attempts(call)
        response = await self._open(call, attempts)
        try:
            yield response
        except httpx.RequestError as error:
            raise attempts.unreachable(error, began=True) from error
        finally:
            await response.aclose()

    async def _open(self, call: Call[Any], attempts: Attempts) -> httpx.Response:
        while True:
            request = self._request(self.http, call)
            try:
                response = await self.http.send(request, stream=True)
                if attempts.accepts(response):
                    return response
                await response.aread()
            except httpx.RequestError as error:
                delay = attempts.after_failure(error)
            else:
                delay = attempts.after_refusal(response)
            await self.sleep(delay)
