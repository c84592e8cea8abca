"""Only our own processes are answered: they know the token, and it is asked for before a byte of a body is read."""

import ipaddress
import secrets
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from inference import errors
from inference.errors import ServerError
from inference.settings import InferenceSettings
from osora_core.errors import UserError

_PUBLIC = "/health"


class AuthenticationMiddleware:
    """Lets requests with the token pass. It is looked for each time: the API may make it after this server starts."""

    def __init__(self, app: ASGIApp, *, token: Callable[[], str | None]) -> None:
        self.app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] == "http" and scope["path"] != _PUBLIC and not self._is_ours(Headers(scope=scope)):
            refusal = ServerError(
                401, "authentication_error", "unauthorized", "this server answers only Osora's own processes"
            )
            status, content = errors.describe(refusal)
            await JSONResponse(content, status)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_ours(self, headers: Headers) -> bool:
        token = self._token()
        offered = headers.get("authorization", "").removeprefix("Bearer ")
        return bool(token) and secrets.compare_digest(offered.encode(), (token or "").encode())


def require_token(settings: InferenceSettings) -> None:
    """Raises `UserError` where other machines could reach a server that has no token to ask for."""
    if not settings.token() and not _is_loopback(settings.inference_host):
        raise UserError(
            f"OSORA_INFERENCE_HOST is {settings.inference_host}, which other machines reach, and there is no token",
            next_action="give API and inference server the same OSORA_INTERNAL_TOKEN, or listen on 127.0.0.1",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
