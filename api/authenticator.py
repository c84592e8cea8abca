"""Whose key does a request carry?"""

from functools import partial

import anyio
from starlette.datastructures import Headers

from api.limits.remembered import Remembered
from registry import tenants
from registry.audit import ORIGIN
from registry.context import Registry
from registry.errors import Unauthorized
from registry.limits.wrong_keys import WrongKeys
from registry.tenants import Principal

_THREADS = 8
_REMEMBERED_SECONDS = 0.5
"""How long a process may take to notice that a key has ended."""


class Authenticator:
    """Looks keys up with threads of its own, in a registry whose connections nobody else uses: whatever all other
    requests wait for, this one waits for nothing but the database.

    A good key is looked up once in half a second, however many requests carry it. A wrong one is, each time.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wrong_keys = WrongKeys()
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._known: Remembered[Principal] = Remembered(_REMEMBERED_SECONDS)

    async def principal(self, headers: Headers) -> Principal:
        """The principal of the key in these headers.

        Raises `Unauthorized`, and `RateLimited` where too many wrong keys have come from the request's address.
        """
        key = _key_in(headers)
        if key is None:
            raise Unauthorized(
                "no API key was sent",
                code="missing_api_key",
                next_action="send the header `Authorization: Bearer osk-…`",
            )

        look_up = partial(anyio.to_thread.run_sync, self._look_up, key, limiter=self._threads)
        origin = ORIGIN.get()
        async with self._wrong_keys.trying(origin.address if origin else None, key) as digest:
            return await self._known.get(digest.hex(), look_up)

    def forget(self) -> None:
        """A key has ended, or a tenant's keys have: here they are refused at once. Any thread may say so."""
        self._known.forget()

    def _look_up(self, key: str) -> Principal:
        with self._registry.reading() as session:
            return tenants.authenticate(session, key)


def _key_in(headers: Headers) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return headers.get("x-api-key") or None
