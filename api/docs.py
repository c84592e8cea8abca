"""`/docs`: Swagger UI for the OpenAPI document, all of it from here, so that it works without a network."""

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

_URL = "/docs"
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

PATHS = (_URL, *(f"{_URL}/{name}" for name in _MEDIA_TYPES))
"""The page, and what it loads."""


def install(app: FastAPI) -> None:
    """Adds the page, and the files of Swagger UI that a package has brought along."""
    app.get(_URL, include_in_schema=False)(_page)
    for name in _MEDIA_TYPES:
        app.get(f"{_URL}/{name}", include_in_schema=False)(partial(_asset, name))
    app.openapi = partial(_in_one_section_each, app.openapi)  # type: ignore[method-assign]


def _in_one_section_each(document: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The document; a route of two doors is in the section of the door that it is shown at, and in no other."""
    made = document()
    for methods in made["paths"].values():
        for operation in methods.values():
            operation["tags"] = operation["tags"][:1]
    return made


def _page() -> HTMLResponse:
    script, style, icon = (f"{_URL}/{name}" for name in _MEDIA_TYPES)
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Osora: the API",
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url=icon,
        # Left to itself, it has a validator on the internet fetch the document.
        swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
    )


def _asset(name: str) -> Response:
    content = (files("fastapi_swagger") / "resources" / name).read_bytes()
    return Response(content, media_type=_MEDIA_TYPES[name], headers={"cache-control": "public, max-age=86400"})
