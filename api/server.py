"""The API's server: it ends event streams when it stops."""

import socket

import uvicorn
from fastapi import FastAPI

from api.services import Services
from osora_common.http_server import ReadyServer
from registry.settings import Settings

_GRACE_SECONDS = 10


class Server(ReadyServer):
    """Serves one app."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level=settings.log_level.lower(),
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the event streams first: uvicorn waits for every answer to end, and these would not."""
        services: Services = self._app.state.services
        services.stopping.set()
        await super().shutdown(sockets)
