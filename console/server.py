"""The console's program: the framework behind the gate, on one event loop."""

import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from nicegui import Client, ui
from nicegui import app as framework
from starlette.staticfiles import StaticFiles

from console import door, outbox, pages, signing_in
from console.gate import Gate
from console.layout import button_link, panel
from console.sessions import Sessions
from console.settings import ConsoleSettings
from console.view import publish

_STATIC = Path(__file__).with_name("static")
_HEAD = """
<script src="/static/theme.js"></script>
<script src="/static/assistive.js"></script>
<script src="/static/connection.js"></script>
<link rel="stylesheet" href="/static/console.css">
<link rel="stylesheet" href="/static/models.css">
"""
# A laptop that was asleep, or a train in a tunnel: the page is still there, with all that has happened meanwhile.
_RECONNECT_SECONDS = 60.0
_GRACE_SECONDS = 2


def create_app(settings: ConsoleSettings) -> FastAPI:
    """The console as an ASGI app. The framework's own state is one per process, and so is the console."""
    sessions = Sessions(settings.api_url, settings.idle_minutes * 60)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with sessions.running():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    is_secure = (settings.public_url or "").startswith("https://")
    app.include_router(signing_in.router(sessions, is_secure=is_secure))
    app.get("/health", response_class=PlainTextResponse)(_healthy)
    app.get("/", response_class=RedirectResponse)(_home)
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.add_middleware(Gate, sessions=sessions, public_url=settings.public_url)
    pages.register()
    publish()
    outbox.install()
    Client.shared_head_html = _HEAD
    # No bar of the framework's at every request, which would have no name for whoever does not see it.
    framework.config.quasar_config["loadingBar"]["skipHijack"] = True
    framework.on_page_exception(_failed)
    for wrong in (404, RequestValidationError):
        framework.exception_handler(wrong)(_nowhere)
    ui.run_with(
        app,
        title="Osora",
        favicon=_STATIC / "osora.svg",
        dark=None,
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=_RECONNECT_SECONDS,
        show_welcome_message=False,
    )
    return app


class Server(uvicorn.Server):
    """Says "ready" on the standard error stream once connections are accepted."""

    def __init__(self, settings: ConsoleSettings) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(settings),
                host=settings.host,
                port=settings.port,
                loop="asyncio",  # not whichever is installed, as uvicorn has it by default
                log_level=settings.log_level.lower(),
                access_log=False,  # it has what people look at, and the links that sign in
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        logging.getLogger("nicegui").setLevel(settings.log_level.upper())

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(None)
        if self.started:
            print("ready", file=sys.stderr, flush=True)


def _failed() -> None:
    """A page that could not be built, for a reason of ours: what it was, the log says."""
    with ui.element("main").classes("content"), panel("", "problem"):
        ui.label("This page failed, by a fault of the console's own.").classes("problem-message")
        ui.label("Next: look at another page, and send the end of the console's log to whoever runs it.")
        button_link("Jobs", "/jobs")


async def _nowhere(_: Request, __: Exception) -> HTMLResponse:
    """An address that leads to nothing, or says what no page understands; who is not signed in gets here too."""
    return HTMLResponse(door.page("nowhere.html", "No such page", "No such page"), 404)


async def _healthy() -> str:
    return "ok\n"


async def _home() -> str:
    return "/jobs"
