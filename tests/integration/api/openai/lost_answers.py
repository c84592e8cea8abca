"""A way to the server on which answers get lost, under OpenAI's client."""

import threading
from collections.abc import Callable
from contextlib import suppress

import httpx2


class LosesAnswers(httpx2.BaseTransport):
    """Sends every request, and loses the answers of the first attempts.

    `gives_up`: what a client waits for before it takes an answer for lost; else it is lost when it is there.
    `meanwhile`: what happens before it sends the request again.
    """

    def __init__(
        self,
        gives_up: Callable[[], object] | None = None,
        attempts: int = 1,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._inner = httpx2.HTTPTransport()
        self._gives_up = gives_up
        self._attempts = attempts
        self._meanwhile = meanwhile
        self.late: list[int] = []
        """The status of answers that came when nobody waited for them any more."""
        self.threads: list[threading.Thread] = []
        self.replayed = 0
        """Answers that were said to be those of an earlier request."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        is_lost = request.method == "POST" and int(request.headers["x-stainless-retry-count"]) < self._attempts
        if not is_lost:
            response = self._inner.handle_request(request)
            self.replayed += response.headers.get("idempotent-replayed") == "true"
            return response
        if self._gives_up is None:
            self._inner.handle_request(request).read()
        else:
            sent = httpx2.Request(request.method, request.url, headers=request.headers, content=request.read())
            self.threads.append(threading.Thread(target=self._send, args=(sent,)))
            self.threads[-1].start()
            self._gives_up()
        self._meanwhile()
        raise httpx2.ReadTimeout("the answer is lost")

    def _send(self, request: httpx2.Request) -> None:
        with suppress(httpx2.HTTPError):
            response = self._inner.handle_request(request)
            response.read()
            self.late.append(response.status_code)

    def close(self) -> None:
        for thread in self.threads:
            thread.join()
        self._inner.close()
