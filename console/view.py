"""What a page is made with.

    @page("/jobs/{job_id}", "Job")
    async def show(view: View, job_id: str) -> None:
        job = await view.osora.jobs.get(job_id)
        ui.label(job["status"])

A module of `console.pages` that has such functions is all it takes: it is found by being there. With `nav` the page is
in the navigation, at that place. An `OsoraError` that leaves the function is shown in the API's own sentences.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import Client, background_tasks, ui

from console.failures import parts, sentence
from console.gate import SCOPE_KEY
from console.layout import Navigation, frame
from console.sessions import Session, SignedOutError
from osora.errors import OsoraAPIError, OsoraError
from osora.sdk import AsyncOsora

NAVIGATION = Navigation()

_built: dict[str, tuple[str, Callable[..., Any]]] = {}
_log = logging.getLogger(__name__)
# The API answers in milliseconds, or says that it is not there within five seconds.
_MOST_SECONDS = 60.0


class View:
    """One page in one browser, for as long as it is open."""

    def __init__(self, session: Session, client: Client) -> None:
        self._session = session
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        session.pages.add(self)
        client.on_delete(self._close)

    @property
    def osora(self) -> AsyncOsora:
        """The API, as whoever is signed in. Not to be kept: ask for it each time. Raises `SignedOutError`."""
        return self._session.osora

    @property
    def is_open(self) -> bool:
        """Whether there is still a page to show anything on."""
        return not self._client.is_deleted

    def background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do this for as long as the page is open. What the API refuses is told."""
        task: asyncio.Task[None] = background_tasks.create(self._told(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """What the API refuses in here is shown as a notice; the page stays. For what a person does: it counts as such.

        view.on(button, "click", …) is made of it.
        """
        self._session.touch()
        try:
            yield
        except SignedOutError:
            ui.navigate.reload()  # at the door, which leads back here
        except OsoraError as error:
            self._refused(error)

    def does(self, work: Callable[..., Awaitable[None]]) -> Callable[..., Coroutine[Any, Any, None]]:
        """A handler of an event: `ui.button("Cancel", on_click=view.does(cancel))`."""
        takes = len(inspect.signature(work).parameters)

        async def handle(*arguments: Any) -> None:
            async with self.telling():
                await work(*arguments[:takes])

        if takes == 0:
            return _without_arguments(handle)
        return _with_an_argument(handle)

    def session_ended(self) -> None:
        """The key is gone: so is all that was shown with it."""
        self._close()
        if self.is_open:
            with self._client:
                ui.navigate.reload()  # at the door, which leads back here
            # The message is sent by the loop's next turns; a browser that is not there any more will not take it.
            asyncio.get_running_loop().call_later(1.0, self._forget)

    def _forget(self) -> None:
        # Where its browser has gone by itself, the framework deletes it, and would miss what somebody else has deleted.
        if self.is_open and self._client.has_socket_connection:
            self._client.delete()

    def _close(self) -> None:
        for task in [*self._tasks]:
            task.cancel()

    async def _told(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except SignedOutError:
            pass
        except OsoraError as error:
            if self.is_open:
                with self._client:
                    self._refused(error)

    def _refused(self, error: OsoraError) -> None:
        if isinstance(error, OsoraAPIError) and error.status == 401:
            self._session.end()
            return
        ui.notify(sentence(error), type="negative", timeout=0, close_button="Close", multi_line=True)


def page(
    route: str, title: str, *, nav: int | None = None, icon: str = ""
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    """Register a page; its function is given a `View` and what the route has in braces."""
    if nav is not None:
        NAVIGATION.add(nav, route, title, icon)

    def register(build: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        @functools.wraps(build)
        async def shown(request: Request, **given: Any) -> RedirectResponse | None:
            session: Session = request.scope[SCOPE_KEY]
            session.touch()
            client = ui.context.client
            view = View(session, client)
            with frame(NAVIGATION, route, title):
                try:
                    await build(view, **given)
                except SignedOutError:
                    return RedirectResponse("/sign-in", 303)
                except OsoraError as error:
                    if isinstance(error, OsoraAPIError) and error.status == 401:
                        session.end()
                        return RedirectResponse("/sign-in", 303)
                    _show_refusal(error)
            return None

        _, *parameters = inspect.signature(build).parameters.values()
        request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
        del shown.__wrapped__
        shown.__signature__ = inspect.Signature([request, *parameters])  # type: ignore[attr-defined]
        shown.__annotations__ = {"request": Request} | {p.name: p.annotation for p in parameters}
        _built[route] = (f"{title} · Osora", shown)
        return build

    return register


def publish() -> None:
    """Have the framework serve all pages that were registered: what is named before what a name may stand for."""
    for route, (title, shown) in sorted(_built.items(), key=lambda entry: "{" in entry[0]):
        ui.page(route, title=title, response_timeout=_MOST_SECONDS)(shown)


def _show_refusal(error: OsoraError) -> None:
    message, next_action = parts(error)
    with ui.element("section").classes("panel problem").props("role=alert"):
        ui.label(message).classes("problem-message")
        if next_action:
            ui.label(f"Next: {next_action}").classes("muted")


def _without_arguments(handle: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def handler() -> None:
        await handle()

    return handler


def _with_an_argument(
    handle: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def handler(event: Any) -> None:
        await handle(event)

    return handler
