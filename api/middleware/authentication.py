"""Every request has a valid key before a byte of its body is read, or goes to a path that needs none."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.services import Services

_INTERNAL = "/internal/"
"""Has a token of its own: see `api.deps.require_internal`."""


class AuthenticationMiddleware:
    """Puts the `Principal` on `request.state.principal`. Paths in `public` are let through without one."""

    def __init__(self, app: ASGIApp, *, public: Collection[str]) -> None:
        self.app = app
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call. Raises `Unauthorized`."""
        if scope["type"] == "http" and not self._is_public(scope["path"]):
            services: Services = scope["app"].state.services
            scope["state"]["principal"] = await services.authenticator.principal(Headers(scope=scope))
        await self.app(scope, receive, send)

    def _is_public(self, path: str) -> bool:
        return path in self._public or path.startswith(_INTERNAL)
