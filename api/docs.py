"""`/docs`: Swagger UI for the OpenAPI document, all of it from here, so that it works without a network."""

from functools import partial
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

_URL = "/docs"
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def install(app: FastAPI) -> None:
    """Adds the page, and the files of Swagger UI that a package has brought along."""
    app.get(_URL, include_in_schema=False)(_page)
    for name in _MEDIA_TYPES:
        app.get(f"{_URL}/{name}", include_in_schema=False)(partial(_asset, name))


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
