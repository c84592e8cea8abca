"""`/docs`: Swagger UI for the OpenAPI document, all of it from here, so that it works without a network."""

import base64
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from api.middleware.request_id import address_of

_DOCUMENT = "/openapi.json"
_URL = "/docs"
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_PIECE_BYTES = 64 * 1024
_MOST_ASKED = 100
"""A look at the page takes five."""
_ASKED_SECONDS = 10.0

PATHS = (_DOCUMENT, _URL, *(f"{_URL}/{name}" for name in _MEDIA_TYPES))
"""The document, the page, and what that loads."""


def install(app: FastAPI, *, is_shown: bool) -> None:
    """Has the app describe itself, and, if it is to be shown, adds the document, the page and the files of Swagger UI
    that a package has brought along."""
    app.openapi = partial(_in_one_section_each, app.openapi)  # type: ignore[method-assign]
    if not is_shown:
        return

    @cache
    def document() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    @app.get(_DOCUMENT, include_in_schema=False)
    async def get_document() -> Response:
        return _Piecewise(document(), media_type="application/json")

    @app.get(_URL, include_in_schema=False)
    async def get_page() -> Response:
        return _Piecewise(_page(), media_type="text/html")

    for name in _MEDIA_TYPES:
        app.get(f"{_URL}/{name}", include_in_schema=False)(partial(_get_asset, name))


def _in_one_section_each(document: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The document; a route of two doors is in the section of the door that it is shown at, and in no other."""
    made = document()
    for methods in made["paths"].values():
        for operation in methods.values():
            operation["tags"] = operation["tags"][:1]
    return made


@cache
def _page() -> bytes:
    script, style, icon = (f"{_URL}/{name}" for name in _MEDIA_TYPES)
    page = get_swagger_ui_html(
        openapi_url=_DOCUMENT,
        title="Osora: the API",
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url=icon,
        # Left to itself, it has a validator on the internet fetch the document.
        swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
    )
    return bytes(page.body)


@cache
def policy() -> str:
    """What the page may load, as a Content-Security-Policy: what comes from here, and the one script that is in it."""
    (script,) = re.findall(rb"<script>(.*?)</script>", _page(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _get_asset(name: str) -> Response:
    return _Piecewise(_asset(name), media_type=_MEDIA_TYPES[name], headers={"cache-control": "public, max-age=86400"})


@cache
def _asset(name: str) -> bytes:
    return (files("fastapi_swagger") / "resources" / name).read_bytes()


class _Piecewise(Response):
    """An answer that goes out piece by piece: anybody may ask for it, and not read it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call. Raises HTTPException 429 to who has asked too often."""
        _ASKED.note(address_of(scope) or "")
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), _PIECE_BYTES):
            piece = self.body[start : start + _PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


class _Asked:
    """How often each address has asked for any of these in the last seconds."""

    def __init__(self) -> None:
        self._times = Counter[str]()
        self._until = 0.0

    def note(self, address: str) -> None:
        """Raises HTTPException 429, which ends the connection with all that it has asked for besides."""
        now = time.monotonic()
        if now >= self._until:
            self._times.clear()
            self._until = now + _ASKED_SECONDS
        self._times[address] += 1
        if self._times[address] > _MOST_ASKED:
            raise HTTPException(
                429,
                f"your address has asked for these documents more than {_MOST_ASKED} times in {_ASKED_SECONDS:.0f} s",
                {"connection": "close", "retry-after": f"{_ASKED_SECONDS:.0f}"},
            )


_ASKED = _Asked()
