"""Requests to host names that are none of the service's are refused, where it was told which are."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.validation import shown
from registry.errors import InvalidRequest

_OF_PROBES = ("/health", "/ready")


class HostMiddleware:
    """Lets those in `hosts` pass; `*.example.com` is every name below that one."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self.app = app
        self._names = {host.lower() for host in hosts if not host.startswith("*")}
        self._ends = tuple(host[1:].lower() for host in hosts if host.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call. Raises `InvalidRequest`."""
        if scope["type"] == "http" and scope["path"] not in _OF_PROBES:
            host = _without_port(Headers(scope=scope).get("host", "").lower())
            if host not in self._names and not (self._ends and host.endswith(self._ends)):
                raise InvalidRequest(
                    f"the host {shown(host)} is none of this service's",
                    code="unknown_host",
                    next_action="call it by a name in OSORA_ALLOWED_HOSTS, or have whoever runs it add this one",
                )
        await self.app(scope, receive, send)


def _without_port(host: str) -> str:
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
