"""Who is signed in: keys live here, in memory, and nowhere else."""

import asyncio
import contextlib
import hashlib
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import httpx

from osora.discovery import discover
from osora.sdk import AsyncOsora

COOKIE = "osora_console"


class Page(Protocol):
    """What was opened in a session."""

    def session_ended(self) -> None:
        """It has no right to anything any more."""


class SignedOutError(Exception):
    """The session has ended: by its own person, by time, or because the API no longer takes its key."""


class Session:
    """One signed-in browser. What it opened ends with it: the key is referred to by nothing afterwards."""

    def __init__(self, osora: AsyncOsora, clock: Callable[[], float]) -> None:
        self._osora: AsyncOsora | None = osora
        self._clock = clock
        self.last_used = clock()
        self.pages: weakref.WeakSet[Page] = weakref.WeakSet()

    @property
    def is_over(self) -> bool:
        return self._osora is None

    @property
    def osora(self) -> AsyncOsora:
        """The API as this person. Raises `SignedOutError`."""
        if self._osora is None:
            raise SignedOutError
        return self._osora

    def touch(self) -> None:
        """Somebody did something."""
        self.last_used = self._clock()

    def end(self) -> None:
        """Forget the key, and end the pages that were opened with it."""
        self._osora = None
        for page in [*self.pages]:
            page.session_ended()


class Sessions:
    """All sessions of this console, by a hash of what their browsers hold."""

    def __init__(self, api_url: str, idle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.api_url = api_url
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._by_hash: dict[str, Session] = {}
        self._http: httpx.AsyncClient | None = None

    def __len__(self) -> int:
        return len(self._by_hash)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While entered, connections to the API are open and idle sessions end."""
        # One pool for all: a page that follows a job holds a connection, so there is no bound on how many.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        timeout = httpx.Timeout(600.0, connect=5.0)
        is_local = discover(self.api_url or None, "none").is_local
        async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=not is_local) as self._http:
            sweeping = asyncio.create_task(self._sweep())
            try:
                yield
            finally:
                sweeping.cancel()
                for session in [*self._by_hash.values()]:
                    session.end()
                self._by_hash.clear()

    def client(self, key: str) -> AsyncOsora:
        """The API with a key. Raises OsoraUsageError for what cannot be one."""
        return AsyncOsora(self.api_url or None, key, max_retries=1, http_client=self._http)

    def begin(self, osora: AsyncOsora) -> str:
        """A new session; returns what its browser is to hold."""
        token = secrets.token_urlsafe(32)
        self._by_hash[_hash(token)] = Session(osora, self._clock)
        return token

    def find(self, token: str | None) -> Session | None:
        """The session of a browser that holds this, if it has not ended."""
        session = self._by_hash.get(_hash(token)) if token else None
        if session is None or token is None:
            return None
        if session.is_over or self._clock() - session.last_used > self._idle_seconds:
            self.end(token)
            return None
        return session

    def end(self, token: str | None) -> None:
        """Sign out."""
        if token and (session := self._by_hash.pop(_hash(token), None)):
            session.end()

    def end_idle(self) -> None:
        """Sign out whoever has done nothing for too long, and forget sessions that ended otherwise."""
        now = self._clock()
        for name, session in [*self._by_hash.items()]:
            if session.is_over or now - session.last_used > self._idle_seconds:
                del self._by_hash[name]
                session.end()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(30.0, self._idle_seconds / 4))
            self.end_idle()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
