"""The API's server: what it lets a connection do, what it logs, and how it stops."""

import ipaddress
import socket
from copy import deepcopy
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from api.services import Services
from osora_common.http_protocol import IDLE_SECONDS, Connections
from osora_common.http_server import ReadyServer, room_for_connections
from registry.http_values import networks_of
from registry.settings import Settings

_GRACE_SECONDS = 10


class Server(ReadyServer):
    """Serves one app."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=cast(Any, _connections(settings).protocol()),
            ws="none",
            loop="asyncio",  # not whichever is installed, as uvicorn has it by default
            log_level=settings.log_level.lower(),
            log_config=_logging(settings.log_level),
            access_log=False,  # it has query strings, and what a client chose, as they came
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the event streams first: uvicorn waits for every answer to end, and these would not."""
        services: Services = self._app.state.services
        services.stopping.set()
        services.events.end()
        await super().shutdown(sockets)


def _connections(settings: Settings) -> Connections:
    proxies = networks_of(settings.trusted_proxies)

    def is_one_client(address: str) -> bool:
        found = ipaddress.ip_address(address)
        return not (found.is_loopback or any(found in proxy for proxy in proxies))

    return Connections(room_for_connections(), settings.connections_per_address, is_one_client)


def _logging(level: str) -> dict[str, Any]:
    """uvicorn's, with the lines of `api.middleware.access_log` where its own would be."""
    config = deepcopy(LOGGING_CONFIG)
    config["formatters"]["access"] = {"format": "%(asctime)s %(message)s"}
    config["loggers"]["osora.access"] = {"handlers": ["access"], "level": level.upper(), "propagate": False}
    return config
