"""Whose key does a request carry?"""

import anyio
from starlette.datastructures import Headers

from registry import tenants
from registry.context import Registry
from registry.errors import Unauthorized
from registry.tenants import Principal

_THREADS = 8


class Authenticator:
    """Looks keys up with threads of its own, in a registry whose connections nobody else uses: whatever all other
    requests wait for, this one waits for nothing but the database."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._threads = anyio.CapacityLimiter(_THREADS)

    async def principal(self, headers: Headers) -> Principal:
        """The principal of the key in these headers. Raises `Unauthorized`."""
        key = _key_in(headers)
        if key is None:
            raise Unauthorized(
                "no API key was sent",
                code="missing_api_key",
                next_action="send the header `Authorization: Bearer osk-…`",
            )

        def look_up() -> Principal:
            with self._registry.reading() as session:
                return tenants.authenticate(session, key)

        return await anyio.to_thread.run_sync(look_up, limiter=self._threads)


def _key_in(headers: Headers) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return headers.get("x-api-key") or None
