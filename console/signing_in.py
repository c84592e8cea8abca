"""Signing in and out: plain pages and forms, before anything of the framework's is there."""

from html import escape
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from console import door
from console.failures import sentence
from console.sessions import COOKIE, Sessions
from osora.discovery import data_dir, discover
from osora.errors import OsoraAPIError, OsoraError
from osora.sdk import AsyncOsora
from osora.serve.console_link import redeem

_MOST_BYTES = 4096
_SPENT = "This link has been used, or another has been made since. Next: `osora console` prints a new one."
_NO_KEY = "This installation has no key of its own. Next: sign in with one."


def router(sessions: Sessions, *, is_secure: bool) -> APIRouter:
    """`/sign-in` and `/sign-out`."""
    routes = APIRouter()

    def signed_in(token: str, where: str) -> Response:
        answer = RedirectResponse(where, 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="lax", secure=is_secure, path="/")
        return answer

    @routes.get("/sign-in")
    async def show(request: Request, once: str = "", next: str = "/") -> Response:
        if not once:
            return _form(next)
        if not redeem(data_dir(), once):
            return _form(next, _SPENT, 403)
        key = discover(sessions.api_url or None).key
        if key is None:
            return _form(next, _NO_KEY, 403)
        sessions.end(request.cookies.get(COOKIE))
        return signed_in(sessions.begin(sessions.client(key)), _own(next))

    @routes.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await _fields(request)
        key, where = fields.get("key", "").strip(), fields.get("next", "/")
        if not key:
            return _form(where, "Paste an API key.")
        try:
            osora = sessions.client(key)
            await _try(osora)
        except OsoraError as error:
            return _form(where, sentence(error))
        sessions.end(request.cookies.get(COOKIE))
        return signed_in(sessions.begin(osora), _own(where))

    @routes.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        sessions.end(request.cookies.get(COOKIE))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    return routes


async def _try(osora: AsyncOsora) -> None:
    """Raises OsoraError where the key is not taken. One that may not read is one all the same."""
    try:
        await osora.bases()
    except OsoraAPIError as error:
        if error.status != 403:
            raise


async def _fields(request: Request) -> dict[str, str]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _form(where: str, problem: str = "", status: int = 200) -> HTMLResponse:
    alert = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    where = escape(_own(where), quote=True)
    return HTMLResponse(door.page("sign-in.html", "Sign in", "Osora", problem=alert, next=where), status)


def _own(where: str) -> str:
    """A path of ours, whatever was asked for."""
    is_ours = where.startswith("/") and not where.startswith(("//", "/\\", "/sign-"))
    return quote(where, safe="/?=&%") if is_ours else "/"
