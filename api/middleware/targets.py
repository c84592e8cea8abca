"""What a request is addressed to: a host name of the service's, if it was told which are, and a query of some sense."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.validation import shown
from registry.errors import InvalidRequest

_OF_PROBES = ("/health", "/ready")
_MOST_PARAMETERS = 1000


class TargetMiddleware:
    """Lets requests to `hosts` pass, or to any if there are none; `*.example.com` is every name below that one."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self.app = app
        self._takes_all = not hosts
        self._names = {host.lower() for host in hosts if not host.startswith("*")}
        self._ends = tuple(host[1:].lower() for host in hosts if host.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call. Raises `InvalidRequest`."""
        if scope["type"] == "http" and scope["path"] not in _OF_PROBES:
            self._check_host(Headers(scope=scope).get("host", "").lower())
            if scope["query_string"].count(b"&") >= _MOST_PARAMETERS:
                raise InvalidRequest(
                    f"the query has more than {_MOST_PARAMETERS} parameters", next_action="send fewer at once"
                )
        await self.app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = _without_port(host)
        if not (self._takes_all or name in self._names or (self._ends and name.endswith(self._ends))):
            raise InvalidRequest(
                f"the host {shown(host)} is none of this service's",
                code="unknown_host",
                next_action="call it by a name in OSORA_ALLOWED_HOSTS, or have whoever runs it add this one",
            )


def _without_port(host: str) -> str:
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
